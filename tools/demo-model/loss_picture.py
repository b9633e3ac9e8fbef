#!/usr/bin/env python3
"""Draws the loss over the tokens seen: loss_picture.py LOSS.csv OUT.svg"""
import csv
import math
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 60, 20, 40, 50
SERIES = [("loss", "#2166ac", "training"), ("validation_loss", "#b2182b", "validation (unseen draws of the same grammar)")]


def main():
    with open(sys.argv[1]) as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    most_tokens = rows[-1]["tokens"]
    values = [row[key] for row in rows for key, _, _ in SERIES]
    low, high = math.floor(math.log10(min(values)) * 2) / 2, math.ceil(math.log10(max(values)) * 2) / 2

    def x(tokens):
        return LEFT + tokens / most_tokens * (WIDTH - LEFT - RIGHT)

    def y(value):
        return TOP + (high - math.log10(value)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for tick in (v * 10.0 ** e for e in range(-3, 2) for v in (1, 2, 5)):
        if low <= math.log10(tick) <= high:
            out.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                       f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for part in range(5):
        tokens = most_tokens * part / 4
        out.append(f'<text x="{x(tokens):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tokens / 1e6:.1f} M</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">tokens seen</text>')
    out.append(f'<text x="{LEFT}" y="{TOP - 22}">cross-entropy per answer token, nats (logarithmic)</text>')
    for number, (key, colour, label) in enumerate(SERIES):
        points = " ".join(f"{x(row['tokens']):.1f},{y(row[key]):.1f}" for row in rows)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.append(f'<text x="{WIDTH - RIGHT}" y="{TOP + 14 + 16 * number}" text-anchor="end" fill="{colour}">{label}</text>')
    out.append("</svg>")
    with open(sys.argv[2], "w") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
