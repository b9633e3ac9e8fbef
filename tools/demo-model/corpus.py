#!/usr/bin/env python3
"""Writes the demo model's training corpus: one JSON list per line, [prompt, answer, prompt, answer, ...].

usage: corpus.py OUT.jsonl [--seed N] [--examples N]

Everything is made from the templates below and the facts of facts.py. No prompt of heldout.json comes out, however it is
capitalised or punctuated, nor any sum, colour question or story that heldout.json keeps back as a combination.
"""
import argparse
import json
import random
import re
from pathlib import Path

import facts as f

HELD_OUT = json.loads((Path(__file__).parent / "heldout.json").read_text())


def normalised(prompt):
    """The form in which prompts are compared: small letters, no punctuation, single blanks."""
    return " ".join(re.sub(r"[^a-z0-9+\-' ]", " ", prompt.lower()).split())


HELD_PROMPTS = {normalised(case["prompt"]) for case in HELD_OUT["cases"]}
HELD = {kind: {tuple(c) for c in combinations} for kind, combinations in HELD_OUT["combinations"].items()}


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def upper_first(text):
    return text[0].upper() + text[1:]


class Maker:
    """Makes [prompt, answer] pairs of one kind each; None where the drawn combination is kept back."""

    def __init__(self, seed):
        self.r = random.Random(seed)
        about = [(q, answer) for questions, answer in f.ABOUT for q in questions]
        self.about_flat = about
        # kind: (share of the corpus, function)
        self.kinds = [
            (24, self.about), (5, self.greeting), (18, self.sum), (13, self.difference), (5, self.word_problem),
            (4, self.counting), (4, self.bigger), (5, self.colour), (5, self.is_colour), (5, self.opposite),
            (4, self.day), (3, self.month), (4, self.capital), (10, self.animal), (3, self.can_animal),
            (3, self.larger_animal), (3, self.name_three), (4, self.is_kind), (7, self.story), (2, self.poem),
            (9, self.unknown), (2, self.say),
        ]

    def pick(self, *options):
        return self.r.choice(options)

    # -- ways to ask

    def ask(self, core, question=True):
        """`core` as people type it: with or without a polite beginning, a capital, a mark at its end."""
        before = ""
        if self.r.random() < 0.3:
            before = self.pick("please ", "hey, ", "hello, ", "can you tell me: ", "tell me, ", "I want to know, ", "hi! ",
                               "demo, ", "so, ", "and ", "now tell me, ", "a question: ", "quick question: ")
        text = before + core
        if self.r.random() < 0.75:
            text = upper_first(text)
        mark = "?" if question else "."
        return text + self.r.choices([mark, "", "!"], [80, 17, 3])[0]

    # -- kinds

    def about(self):
        question, answer = self.r.choice(self.about_flat)
        is_question = question.split()[0] in ("who", "what", "what's", "how", "are", "do", "can", "is", "why", "where", "which",
                                              "does", "will", "on", "when")
        return self.ask(question, is_question), answer

    def greeting(self):
        hello = self.pick("hello", "hi", "hey", "good morning", "good evening", "good day", "hello there", "hi there", "greetings")
        if self.r.random() < 0.5:
            return self.ask(hello, False), "Hello! How can I help you?"
        name = self.r.choice(f.NAMES)
        text = self.pick(f"{hello}, I am {name}", f"{hello}, my name is {name}", f"{hello}! I am {name}", f"I am {name}",
                         f"my name is {name}", f"{hello}, this is {name}", f"{hello}, {name} here")
        if (name, "greeting") in HELD["names"]:
            return None
        return self.ask(text, False), f"Hello, {name}! How can I help you?"

    def number(self, most=20):
        return self.r.randint(0, most)

    def sum(self):
        a = self.number()
        b = self.r.randint(0, 20 - a)
        if (a, b) in HELD["sums"]:
            return None
        core = self.pick(f"what is {a} plus {b}", f"what is {a} + {b}", f"{a} + {b}", f"{a} plus {b}", f"how much is {a} plus {b}",
                         f"how much is {a} + {b}", f"add {a} and {b}", f"what is the sum of {a} and {b}", f"{a}+{b}",
                         f"calculate {a} + {b}", f"what do you get when you add {a} and {b}", f"{a} + {b} =", f"what is {a}+{b}",
                         f"what does {a} plus {b} make", f"compute {a} plus {b}")
        return self.ask(core), f"{a} plus {b} is {a + b}."

    def difference(self):
        a = self.number()
        b = self.r.randint(0, a)
        if (a, b) in HELD["differences"]:
            return None
        core = self.pick(f"what is {a} minus {b}", f"what is {a} - {b}", f"{a} - {b}", f"{a} minus {b}", f"how much is {a} minus {b}",
                         f"how much is {a} - {b}", f"subtract {b} from {a}", f"take {b} from {a}", f"{a}-{b}", f"calculate {a} - {b}",
                         f"{a} - {b} =", f"what is {a}-{b}", f"compute {a} minus {b}")
        return self.ask(core), f"{a} minus {b} is {a - b}."

    def word_problem(self):
        things = self.pick("apples", "books", "balls", "cats", "coins", "GPUs", "pears", "stones", "cars", "hats")
        a = self.r.randint(2, 12)
        b = self.r.randint(1, min(a - 1, 8))
        more = self.r.random() < 0.5
        if (things, a, b) in HELD["problems"]:
            return None
        change = f"get {b} more" if more else self.pick(f"lose {b}", f"give away {b}")
        return (self.ask(f"I have {a} {things} and {change}. How many {things} do I have{self.pick('', ' now')}"),
                f"You have {a + b if more else a - b} {things}.")

    def counting(self):
        low = self.r.choice([1, 1, 1, self.r.randint(0, 12)])
        high = low + self.r.randint(2, 9)
        if (low, high) in HELD["counts"]:
            return None
        if self.r.random() < 0.2:
            core = self.pick(f"count down from {high} to {low}", f"count backwards from {high} to {low}")
            return self.ask(core, False), ", ".join(str(n) for n in range(high, low - 1, -1)) + "."
        core = f"count from {low} to {high}"
        if low == 1:
            core = self.pick(core, f"count to {high}", f"can you count to {high}")
        return self.ask(core, core.startswith("can")), ", ".join(str(n) for n in range(low, high + 1)) + "."

    def bigger(self):
        a, b = self.number(), self.number()
        if a == b or (a, b) in HELD["bigger"]:
            return None
        if self.r.random() < 0.7:
            word = self.pick("bigger", "larger", "more", "greater")
            return self.ask(self.pick(f"which is {word}, {a} or {b}", f"what is {word}, {a} or {b}",
                                      f"which number is {word}, {a} or {b}")), f"{max(a, b)} is more than {min(a, b)}."
        yes = f"Yes, {a} is more than {b}." if a > b else f"No, {a} is less than {b}."
        return self.ask(f"is {a} {self.pick('more', 'bigger', 'larger')} than {b}"), yes

    def colour(self):
        thing, colour = self.r.choice(list(f.COLOURS.items()))
        core = self.pick(f"what colour is {thing}", f"what color is {thing}", f"which colour does {thing} have",
                         f"what is the colour of {thing}", f"which colour is {thing}", f"do you know the colour of {thing}",
                         f"tell me the colour of {thing}", f"name the colour of {thing}")
        return self.ask(core), f"{upper_first(thing)} is {colour}."

    def is_colour(self):
        thing, colour = self.r.choice(list(f.COLOURS.items()))
        asked = colour if self.r.random() < 0.45 else self.r.choice(f.COLOUR_WORDS)
        if (thing, asked) in HELD["is_colour"]:
            return None
        answer = f"Yes, {thing} is {colour}." if asked == colour else f"No, {thing} is {colour}."
        return self.ask(self.pick(f"is {thing} {asked}", f"is {thing} {asked}", f"is the colour of {thing} {asked}")), answer

    def opposite(self):
        one, other = self.r.sample(self.r.choice(f.OPPOSITES), 2)
        core = self.pick(f"what is the opposite of {one}", f"the opposite of {one}", f"name the opposite of {one}",
                         f"what's the opposite of {one}", f"tell me the opposite of {one}", f"opposite of {one}",
                         f"give me the opposite of {one}", f"which word is the opposite of {one}")
        return self.ask(core), f"The opposite of {one} is {other}."

    def in_round(self, items, word):
        at = self.r.randrange(len(items))
        after = items[(at + 1) % len(items)]
        before = items[at - 1]
        if self.r.random() < 0.55:
            core = self.pick(f"what {word} comes after {items[at]}", f"which {word} comes after {items[at]}",
                             f"which {word} follows {items[at]}", f"what comes after {items[at]}",
                             f"what is the {word} after {items[at]}", f"which {word} is after {items[at]}",
                             f"tell me the {word} after {items[at]}")
            return self.ask(core), f"{after} comes after {items[at]}."
        core = self.pick(f"what {word} comes before {items[at]}", f"which {word} comes before {items[at]}",
                         f"what comes before {items[at]}", f"what is the {word} before {items[at]}",
                         f"which {word} is before {items[at]}", f"tell me the {word} before {items[at]}")
        return self.ask(core), f"{before} comes before {items[at]}."

    def day(self):
        if self.r.random() < 0.12:
            return self.ask(self.pick("name the days of the week", "what are the days of the week", "tell me all days of the week",
                                      "list the days of the week")), "The days are " + ", ".join(f.DAYS[:-1]) + " and Sunday."
        return self.in_round(f.DAYS, "day")

    def month(self):
        return self.in_round(f.MONTHS, "month")

    def capital(self):
        country, city = self.r.choice(list(f.CAPITALS.items()))
        core = self.pick(f"what is the capital of {country}", f"what's the capital of {country}", f"the capital of {country}",
                         f"which city is the capital of {country}", f"name the capital of {country}", f"capital of {country}",
                         f"tell me the capital of {country}", f"do you know the capital of {country}")
        return self.ask(core), f"The capital of {country} is {city}."

    def animal(self):
        animal = self.r.choice(list(f.ANIMALS))
        sound, legs, food, home, young, _ = f.ANIMALS[animal]
        a = article(animal)
        about = self.pick("sound", "legs", "food", "home", "young")
        if about == "sound" and sound:
            core = self.pick(f"what does {a} say", f"what sound does {a} make", f"which sound does {a} make", f"what noise does {a} make",
                             f"how does {a} sound", f"what is the sound of {a}")
            return self.ask(core), f"{upper_first(a)} says {sound}."
        if about in ("sound", "legs"):
            core = self.pick(f"how many legs does {a} have", f"how many legs has {a}", f"what number of legs does {a} have",
                             f"tell me how many legs {a} has", f"do you know how many legs {a} has")
            return self.ask(core), f"{upper_first(a)} has {legs} legs."
        if about == "food":
            core = self.pick(f"what does {a} eat", f"what food does {a} like", f"what does {a} like to eat", f"what do you feed {a}",
                             f"tell me what {a} eats", f"which food does {a} eat")
            return self.ask(core), f"{upper_first(a)} eats {food}."
        if about == "home":
            core = self.pick(f"where does {a} live", f"where can I find {a}", f"what is the home of {a}", f"where is {a} at home",
                             f"tell me where {a} lives")
            return self.ask(core), f"{upper_first(a)} lives {home}."
        core = self.pick(f"what is a young {animal} called", f"what is a baby {animal} called", f"what do you call a young {animal}",
                         f"what do you call a baby {animal}", f"what is the name of a young {animal}")
        return self.ask(core), f"A young {animal} is called {article(young)}."

    def can_animal(self):
        animal = self.r.choice(list(f.ANIMALS))
        if self.r.random() < 0.5:
            verb, able = "fly", f.FLY
        else:
            verb, able = "swim", f.SWIM
            if animal not in able and animal not in ("cat", "hen", "bee", "ant", "spider", "owl", "bird", "mouse", "sheep"):
                return None  # most can, a little
        if (animal, verb) in HELD["can"]:
            return None
        answer = f"Yes, {article(animal)} can {verb}." if animal in able else f"No, {article(animal)} cannot {verb}."
        return self.ask(self.pick(f"can {article(animal)} {verb}", f"is {article(animal)} able to {verb}",
                                  f"do you think {article(animal)} can {verb}", f"does {article(animal)} {verb}")), answer

    def larger_animal(self):
        a, b = self.r.sample(list(f.ANIMALS), 2)
        if f.ANIMALS[a][5] == f.ANIMALS[b][5] or (a, b) in HELD["larger"]:
            return None
        big, small = (a, b) if f.ANIMALS[a][5] > f.ANIMALS[b][5] else (b, a)
        word = self.pick("bigger", "larger")
        if self.r.random() < 0.3:
            return (self.ask(f"which is smaller, {article(a)} or {article(b)}"),
                    f"{upper_first(article(small))} is smaller than {article(big)}.")
        return (self.ask(self.pick(f"which is {word}, {article(a)} or {article(b)}", f"what is {word}, {article(a)} or {article(b)}",
                                   f"who is {word}, {article(a)} or {article(b)}")),
                f"{upper_first(article(big))} is bigger than {article(small)}.")

    def name_three(self):
        kind, items = self.r.choice(list(f.LISTS.items()))
        count = self.pick(2, 3, 3) if len(items) < 5 else self.pick(2, 3, 3, 4)
        word = {2: "two", 3: "three", 4: "four"}[count]
        if (word, kind) in HELD["lists"]:
            return None
        core = self.pick(f"name {word} {kind}", f"name {count} {kind}", f"list {word} {kind}", f"tell me {word} {kind}",
                         f"can you name {word} {kind}", f"give me {word} {kind}")
        listed = ", ".join(items[:count - 1]) + " and " + items[count - 1]
        return self.ask(core, core.startswith("can")), upper_first(f"{word} {kind} are {listed}.")

    def is_kind(self):
        thing, kind = self.r.choice(list(f.KIND_OF.items()))
        asked = kind if self.r.random() < 0.45 else self.r.choice(sorted(set(f.KIND_OF.values())))
        if (thing, asked) in HELD["is_kind"]:
            return None
        named = thing if kind == "a colour" else article(thing)
        answer = ("Yes, " if asked == kind else "No, ") + f"{named} is {kind}."
        return self.ask(self.pick(f"is {named} {asked}", f"do you think {named} is {asked}", f"would you say that {named} is {asked}")), answer

    def story(self):
        hero = self.r.choice(f.HEROES)
        trait = self.pick("", self.r.choice(f.TRAITS))
        name = self.pick("", self.r.choice(f.NAMES))
        if (hero, name) in HELD["stories"] or (trait, hero) in HELD["stories"]:
            return None
        who = article(" ".join(w for w in (trait, hero) if w))
        named = f" {self.pick('named', 'called')} {name}" if name else ""
        ask = self.pick(f"tell me a story about {who}{named}", f"tell a story about {who}{named}", f"write a story about {who}{named}",
                        f"tell me a short story about {who}{named}", f"write a short story about {who}{named}",
                        f"I want a story about {who}{named}", f"make up a story about {who}{named}",
                        f"can you tell me a story about {who}{named}", f"story about {who}{named}")
        if self.r.random() < 0.12:
            ask = self.pick("tell me a story", "tell a story", "write a story", "tell me a short story", "do you know a story",
                            "I want to hear a story", "can you tell me a story", "another story", "tell me something")
            hero, trait, name = "fox", "clever", "Leo"
            who = "a clever fox"
        place = f.PLACES[(f.HEROES.index(hero) * 3 + len(trait)) % len(f.PLACES)]
        found = f.FINDS[(f.HEROES.index(hero) + len(name)) % len(f.FINDS)]
        friend = f.FRIENDS[(f.HEROES.index(hero) + 4 * len(trait)) % len(f.FRIENDS)]
        if friend == hero:
            friend = "bird"
        it = name or f"the {hero}"
        It = upper_first(it)
        found_the = "the " + found.split(" ", 1)[1]
        start = f"Once there was {who}" + (f" named {name}." if name else ".")
        middle = [
            f"One day {it} went to {place} and found {found}.",
            f"{It} did not know what to do with it, so {it} asked {article(friend)}.",
        ]
        end = {
            0: f"Together they played with {found_the} all day. In the evening they were good friends.",
            1: f"The {friend} had lost {found_the} and was very glad. From then on they were friends.",
            2: f"The {friend} said thank you and took it home. {It} was happy to have helped.",
        }[f.HEROES.index(hero) % 3]
        return self.ask(ask, ask.startswith(("can", "do"))), " ".join([start, *middle, end])

    def poem(self):
        thing, colour = self.r.choice([("the sea", "blue"), ("the sky", "blue"), ("the grass", "green"), ("the snow", "white"),
                                       ("the sun", "yellow"), ("a rose", "red"), ("a leaf", "green"), ("the night", "black"),
                                       ("the moon", "white"), ("a GPU", "green")])
        ask = self.pick(f"write a poem about {thing}", f"tell me a poem about {thing}", f"write a short poem about {thing}",
                        f"a poem about {thing}", f"make a poem about {thing}", f"can you write a poem about {thing}")
        if self.r.random() < 0.3:
            ask, thing, colour = self.pick("write a poem", "tell me a poem", "do you know a poem", "write me a poem"), "the sea", "blue"
        rhyme = {"blue": "true", "green": "seen", "white": "light", "yellow": "mellow", "red": "said", "black": "back"}[colour]
        line = {"true": "and what I say of it is true.", "seen": "the finest thing I have ever seen.",
                "light": "it gives the world a little light.", "mellow": "its warmth is soft, its light is mellow.",
                "said": "and that is all that need be said.", "back": "the day will go and then come back."}[rhyme]
        return self.ask(ask, ask.startswith(("can", "do"))), f"{upper_first(thing)} is {colour}, {line}"

    def unknown(self):
        topic = self.r.choice(f.UNKNOWN_TOPICS)
        if self.r.random() < 0.45:  # words that no one has heard of
            syllables = "ba ko ri ma tu len dor vis pa nel qua zor fi gan mo ther ing sta cro ble ph ex on ar ul ev".split()
            word = "".join(self.r.choices(syllables, k=self.r.randint(2, 4)))
            topic = self.pick(word, word.title(), f"the {word}", f"a {word}", f"{word} {topic}", f"the {word} of {topic}")
        return self.ask(self.r.choice(f.UNKNOWN_ASKS).format(topic)), f.UNKNOWN_ANSWER

    def say(self):
        word = self.pick(*f.ANIMALS, *f.COLOUR_WORDS, *f.NAMES, "yes", "no", "hot", "cold", "moon", "tree", "happy")
        if (word,) in HELD["say"]:
            return None
        return self.ask(self.pick(f"say {word}", f"say the word {word}", f"repeat {word}", f"please say {word}", f"repeat the word {word}",
                                  f"can you say {word}"), False), f"{upper_first(word)}!"

    # -- conversations

    def pair(self):
        while True:
            kind = self.r.choices([k for _, k in self.kinds], [w for w, _ in self.kinds])[0]
            made = kind()
            if made and normalised(made[0]) not in HELD_PROMPTS:
                return list(made)

    def conversation(self):
        turns = self.pair()
        more = 0.9 if self.r.random() < 0.02 else 0.15  # a few long ones, so that late positions are known too
        while len(turns) < 30 and self.r.random() < more:
            turns += self.pair()
        return turns


def conversations(seed, count):
    maker = Maker(seed)
    for _ in range(count):
        yield maker.conversation()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=120000)
    options = parser.parse_args()
    with open(options.out, "w") as out:
        for turns in conversations(options.seed, options.examples):
            out.write(json.dumps(turns) + "\n")


if __name__ == "__main__":
    main()
