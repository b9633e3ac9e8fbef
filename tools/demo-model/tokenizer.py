#!/usr/bin/env python3
"""A byte-pair tokenizer of the kind llama.cpp calls "gpt2", and the documents of tokens that the trainer reads.

usage: tokenizer.py train CORPUS.jsonl TOKENIZER.json [--vocab N]
       tokenizer.py documents CORPUS.jsonl TOKENIZER.json OUT.bin

Bytes stand as the visible characters of GPT-2's table (Radford et al. 2019; openai/gpt-2 src/encoder.py); text is first cut
by GPT-2's expression. Digits never merge, so a number is its digits.
"""
import argparse
import collections
import functools
import json
import re
import struct

SPECIAL = ["<|bos|>", "<|user|>", "<|assistant|>", "<|end|>"]
BOS, USER, ASSISTANT, END = range(4)
# GPT-2's expression for text in ASCII, which is all that the corpus has.
PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
ANSWER_BIT = 0x8000


def visible_bytes():
    """The character that stands for each byte: itself where it is visible, else one from 256 upwards."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table, extra = {}, 256
    for byte in range(256):
        if byte in visible:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(extra)
            extra += 1
    return table


BYTES = visible_bytes()


def pieces(text):
    return ["".join(BYTES[b] for b in piece.encode()) for piece in PIECES.findall(text)]


def train(texts, vocab):
    """Merges in the order found: the most frequent pair first, the alphabetically first among equals."""
    words = collections.Counter(piece for text in texts for piece in pieces(text))
    split = {word: list(word) for word in words}
    merges = []
    while len(SPECIAL) + 256 + len(merges) < vocab:
        pairs = collections.Counter()
        for word, parts in split.items():
            for pair in zip(parts, parts[1:]):
                if not any(c.isdigit() for c in pair[0] + pair[1]):
                    pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in split.values():
            merge(parts, best)
    return merges


def merge(parts, pair):
    i = 0
    while i + 1 < len(parts):
        if (parts[i], parts[i + 1]) == pair:
            parts[i:i + 2] = [pair[0] + pair[1]]
        i += 1


class Tokenizer:
    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.rank = {pair: i for i, pair in enumerate(self.merges)}
        self.tokens = SPECIAL + [BYTES[b] for b in range(256)] + [a + b for a, b in self.merges]
        self.number = {token: i for i, token in enumerate(self.tokens)}
        self.encode_piece = functools.lru_cache(maxsize=None)(self.encode_piece)

    @staticmethod
    def load(path):
        with open(path) as file:
            return Tokenizer(json.load(file)["merges"])

    def encode_piece(self, piece):
        parts = list(piece)
        while len(parts) > 1:
            ranked = [(self.rank.get(pair, len(self.rank)), i) for i, pair in enumerate(zip(parts, parts[1:]))]
            rank, i = min(ranked)
            if rank == len(self.rank):
                break
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        return [self.number[p] for p in parts]

    def encode(self, text):
        return [token for piece in pieces(text) for token in self.encode_piece(piece)]

    def document(self, turns):
        """Tokens of a conversation as the chat template writes it, and whether each belongs to an answer."""
        tokens, answer = [BOS], [False]
        for i, text in enumerate(turns):
            said = self.encode(text)
            tokens += [ASSISTANT if i % 2 else USER, *said, END]
            answer += [False] + [bool(i % 2)] * (len(said) + 1)
        return tokens, answer


def write_documents(conversations, tokenizer, path):
    total = 0
    with open(path, "wb") as out:
        for turns in conversations:
            tokens, answer = tokenizer.document(turns)
            values = [t | ANSWER_BIT if a else t for t, a in zip(tokens, answer)]
            out.write(struct.pack(f"<{len(values) + 1}H", len(values), *values))
            total += len(values)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "documents"])
    parser.add_argument("corpus")
    parser.add_argument("tokenizer")
    parser.add_argument("out", nargs="?")
    parser.add_argument("--vocab", type=int, default=1024)
    options = parser.parse_args()
    with open(options.corpus) as file:
        conversations = [json.loads(line) for line in file]
    if options.what == "train":
        merges = train((text for turns in conversations for text in turns), options.vocab)
        with open(options.tokenizer, "w") as out:
            json.dump({"merges": merges}, out, ensure_ascii=False)
    else:
        total = write_documents(conversations, Tokenizer.load(options.tokenizer), options.out)
        print(f"{len(conversations)} documents, {total} tokens")


if __name__ == "__main__":
    main()
