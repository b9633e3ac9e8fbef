/**
 * A tone for each model name: the same name keeps its tone while the set of names stays, and no two share one as
 * long as there are at most as many names as tones.
 *
 * Every tone carries white text at 4.5:1 or more and stands out from both page backgrounds by 3:1 or more
 * (WCAG 2.2, 1.4.3 and 1.4.11; tests/colour.test.ts computes it).
 */
export const TONES = [
  '#2f6bd8', '#0b7f6f', '#b4530a', '#8a4bd0', '#c2366b', '#4d7c0f',
  '#0e7494', '#a05a2c', '#6366d9', '#be3a2b', '#5d7285', '#9a6700',
] as const;

/** FNV-1a, 32 bit. */
export function hash(text: string): number {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) {
    h ^= byte;
    h = Math.imul(h, 0x01000193) >>> 0;
  }
  return h >>> 0;
}

export function tonesFor(names: Iterable<string>): Map<string, string> {
  const tones = new Map<string, string>();
  const taken = new Set<number>();
  for (const name of [...new Set(names)].sort()) {
    let at = hash(name) % TONES.length;
    if (taken.size < TONES.length) while (taken.has(at)) at = (at + 1) % TONES.length;
    taken.add(at);
    tones.set(name, TONES[at]!);
  }
  return tones;
}
