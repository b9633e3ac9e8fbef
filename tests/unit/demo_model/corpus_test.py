#!/usr/bin/env python3
"""The held-out prompts stay out of the corpus; the tokenizer cuts and joins as the engine does."""
import json
import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools/demo-model"))
import corpus
import tokenizer

SEED = 1  # as tools/demo-model/make, of whose corpus this is the beginning, and all of it with --all
EXAMPLES = 30000


class Corpus(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        make = (Path(corpus.__file__).parent / "make").read_text()
        seed, whole = re.search(r'corpus\.jsonl" --seed (\d+) --examples (\d+)', make).groups()
        assert int(seed) == SEED
        count = int(whole) if "--all" in sys.argv else EXAMPLES
        cls.conversations = list(corpus.conversations(SEED, count))
        cls.prompts = {corpus.normalised(p) for turns in cls.conversations for p in turns[::2]}

    def test_there_are_forty_held_out_prompts_and_all_differ(self):
        prompts = [corpus.normalised(case["prompt"]) for case in corpus.HELD_OUT["cases"]]
        self.assertEqual(len(prompts), 40)
        self.assertEqual(len(set(prompts)), 40)

    def test_none_of_them_occurs_however_it_is_written(self):
        for case in corpus.HELD_OUT["cases"]:
            self.assertNotIn(corpus.normalised(case["prompt"]), self.prompts)

    def test_the_comparison_would_notice_one(self):
        self.assertEqual(corpus.normalised("  what IS 7 plus 5"), corpus.normalised("What is 7 plus 5?"))
        self.assertIn(corpus.normalised("Who are you!"), self.prompts)

    def test_held_out_sums_and_differences_occur_in_no_wording(self):
        for sign, word, kind in (("+", "plus", "sums"), ("-", "minus", "differences")):
            for a, b in corpus.HELD[kind]:
                wordings = re.compile(rf"(?<!\d){a} ?(\{sign}|{word}) ?{b}(?!\d)")
                if sign == "+":
                    wordings = re.compile(wordings.pattern + rf"|(add|sum of|when you add) {a} and {b}(?!\d)")
                else:
                    wordings = re.compile(wordings.pattern + rf"|(subtract|take) {b} from {a}(?!\d)")
                found = [t for turns in self.conversations for t in turns if wordings.search(t)]
                self.assertEqual(found, [])

    def test_held_out_stories_and_yes_or_no_questions_occur_in_no_wording(self):
        for pattern in (r"bear (named|called) Lucy", r"brave robot", r"grass red", r"snow white", r"plum (is )?an animal\?",
                        r"horse (able to )?fly", r"four farm animals"):
            self.assertEqual([p for p in self.prompts if re.search(pattern.lower(), p)], [], pattern)

    def test_the_same_seed_writes_the_same(self):
        self.assertEqual(list(corpus.conversations(SEED, 50)), self.conversations[:50])

    def test_sums_in_the_corpus_are_right(self):
        seen = 0
        for turns in self.conversations:
            for text in turns[1::2]:
                found = re.fullmatch(r"(\d+) (plus|minus) (\d+) is (\d+)\.", text)
                if found:
                    a, word, b, c = found.groups()
                    self.assertEqual(int(a) + int(b) * (1 if word == "plus" else -1), int(c), text)
                    seen += 1
        self.assertGreater(seen, 1000)


class Tokens(unittest.TestCase):
    def setUp(self):
        self.tokenizer = tokenizer.Tokenizer(tokenizer.train(["hello hello hello, yellow 1212 1212"], 270))

    def decode(self, tokens):
        back = {visible: byte for byte, visible in tokenizer.BYTES.items()}
        return bytes(back[c] for t in tokens for c in self.tokenizer.tokens[t]).decode()

    def test_any_text_comes_back(self):
        for text in ("hello yellow", "  two  blanks\n\nlines\t", "don't 3.14!", "h\u00e9 \u65e5\u672c \U0001f600"):
            self.assertEqual(self.decode(self.tokenizer.encode(text)), text)

    def test_words_merge_and_digits_do_not(self):
        self.assertLess(len(self.tokenizer.encode("hello")), 5)
        self.assertEqual(len(self.tokenizer.encode("1212")), 4)

    def test_only_answers_are_learned(self):
        tokens, answer = self.tokenizer.document(["a", "b"])
        self.assertEqual([t for t, a in zip(tokens, answer) if a], [*self.tokenizer.encode("b"), tokenizer.END])


if __name__ == "__main__":
    unittest.main(argv=[a for a in sys.argv if a != "--all"])
