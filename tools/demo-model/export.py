#!/usr/bin/env python3
"""Writes the trained weights as a GGUF file (version 3, F16 matrices and F32 norms) with tokenizer and chat template.

usage: export.py WEIGHTS TOKENIZER.json OUT.gguf [--width N ...]
"""
import argparse
import array
import os
import struct

from tokenizer import BOS, END, SPECIAL, Tokenizer

ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # ggml/include/gguf.h of llama.cpp v0.5.0
F32, F16 = 0, 1  # ggml/include/ggml.h
NORMAL, CONTROL = 1, 3  # include/llama.h, llama_token_type

# What the model was trained on: no system messages, so they are left out.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] + '<|end|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


class Header:
    def __init__(self):
        self.keys, self.data = 0, b""

    def add(self, key, kind, data):
        self.keys += 1
        self.data += text(key) + struct.pack("<I", kind) + data

    def number(self, key, value):
        self.add(key, UINT32, struct.pack("<I", value))

    def real(self, key, value):
        self.add(key, FLOAT32, struct.pack("<f", value))

    def flag(self, key, value):
        self.add(key, BOOL, struct.pack("<?", value))

    def string(self, key, value):
        self.add(key, STRING, text(value))

    def array(self, key, kind, items):
        self.add(key, ARRAY, struct.pack("<IQ", kind, len(items)) + b"".join(items))


def metadata(o, tokenizer):
    h = Header()
    h.string("general.architecture", "llama")
    h.string("general.name", "AIvailable demo")
    h.string("general.description", "A tiny model to try AIvailable with; for demonstration only")
    h.string("general.license", "apache-2.0")
    h.number("general.file_type", 1)  # mostly F16
    h.number("llama.context_length", o.context)
    h.number("llama.embedding_length", o.width)
    h.number("llama.block_count", o.layers)
    h.number("llama.feed_forward_length", o.feed_forward)
    h.number("llama.attention.head_count", o.heads)
    h.number("llama.attention.head_count_kv", o.heads)
    h.real("llama.attention.layer_norm_rms_epsilon", 1e-5)
    h.real("llama.rope.freq_base", 10000.0)
    h.number("llama.rope.dimension_count", o.width // o.heads)
    h.number("llama.vocab_size", len(tokenizer.tokens))
    h.string("tokenizer.ggml.model", "gpt2")
    h.string("tokenizer.ggml.pre", "gpt-2")
    h.array("tokenizer.ggml.tokens", STRING, [text(t) for t in tokenizer.tokens])
    kinds = [CONTROL if t in SPECIAL else NORMAL for t in tokenizer.tokens]
    h.array("tokenizer.ggml.token_type", INT32, [struct.pack("<i", k) for k in kinds])
    h.array("tokenizer.ggml.merges", STRING, [text(f"{a} {b}") for a, b in tokenizer.merges])
    h.number("tokenizer.ggml.bos_token_id", BOS)
    h.number("tokenizer.ggml.eos_token_id", END)
    h.flag("tokenizer.ggml.add_bos_token", True)
    h.string("tokenizer.chat_template", TEMPLATE)
    return h


def parts(o, vocab):
    """(name, rows, columns) in the order of the trainer's Layout; a norm has no rows."""
    yield "token_embd.weight", vocab, o.width
    yield "output_norm.weight", 0, o.width
    for i in range(o.layers):
        block = f"blk.{i}."
        yield block + "attn_norm.weight", 0, o.width
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"{block}{name}.weight", o.width, o.width
        yield block + "ffn_norm.weight", 0, o.width
        yield block + "ffn_gate.weight", o.feed_forward, o.width
        yield block + "ffn_up.weight", o.feed_forward, o.width
        yield block + "ffn_down.weight", o.width, o.feed_forward


def padded(data):
    return data + b"\0" * (-len(data) % ALIGNMENT)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("tokenizer")
    parser.add_argument("out")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--feed-forward", type=int, default=352)
    parser.add_argument("--context", type=int, default=1024)
    o = parser.parse_args()
    tokenizer = Tokenizer.load(o.tokenizer)
    weights = array.array("f")
    with open(o.weights, "rb") as file:
        weights.frombytes(file.read())

    infos, body, at, count = b"", b"", 0, 0
    for name, rows, columns in parts(o, len(tokenizer.tokens)):
        values = weights[at:at + max(rows, 1) * columns]
        at += len(values)
        count += 1
        dims = (columns, rows) if rows else (columns,)  # fastest first, as ggml counts
        infos += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, F16 if rows else F32, len(body))
        body += padded(struct.pack(f"<{len(values)}{'e' if rows else 'f'}", *values))
    if at != len(weights):
        raise SystemExit(f"{o.weights}: {len(weights)} weights, but the shape has {at}")
    h = metadata(o, tokenizer)
    head = padded(b"GGUF" + struct.pack("<IQQ", 3, count, h.keys) + h.data + infos)
    with open(o.out + ".part", "wb") as out:
        out.write(head + body)
    os.replace(o.out + ".part", o.out)
    print(f"{o.out}: {len(head) + len(body)} bytes, {at} parameters")


if __name__ == "__main__":
    main()
