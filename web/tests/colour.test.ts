import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { TONES, tonesFor } from '../src/lib/colour';

// Relative luminance and contrast as WCAG 2.2 defines them.
function luminance(hex: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const c = parseInt(hex.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
}
function contrast(a: string, b: string): number {
  const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x! + 0.05) / (y! + 0.05);
}

const css = readFileSync(`${process.cwd()}/src/app.css`, 'utf8');
function themeOf(selector: string): Map<string, string> {
  const from = css.indexOf(selector);
  expect(from).toBeGreaterThanOrEqual(0);
  const block = css.slice(from, css.indexOf('}', from));
  return new Map([...block.matchAll(/(--[\w-]+): (#[0-9a-f]{6});/g)].map((m) => [m[1]!, m[2]!]));
}
const light = themeOf(':root {');
const dark = themeOf(":root[data-theme='dark'] {");

describe('tones of the models', () => {
  it('carry white text at 4.5:1 and stand out from the card at 3:1 in both themes', () => {
    for (const tone of TONES) {
      expect(contrast(tone, '#ffffff'), tone).toBeGreaterThanOrEqual(4.5);
      expect(contrast(tone, dark.get('--surface')!), tone).toBeGreaterThanOrEqual(3);
      expect(contrast(tone, light.get('--surface')!), tone).toBeGreaterThanOrEqual(3);
    }
  });

  it('differ between models while there are enough of them', () => {
    const names = Array.from({ length: TONES.length }, (_, i) => `model-${i}`);
    expect(new Set(tonesFor(names).values()).size).toBe(TONES.length);
    expect(tonesFor([...names, 'one-more']).size).toBe(TONES.length + 1);
  });

  it('do not depend on the order of the list', () => {
    expect([...tonesFor(['b', 'a', 'c'])].sort()).toEqual([...tonesFor(['c', 'b', 'a', 'a'])].sort());
  });
});

describe('text on the page', () => {
  const pairs: [string, string][] = [
    ['--ink', '--bg'], ['--ink', '--surface'], ['--ink', '--accent-soft'], ['--ink', '--bad-soft'],
    ['--ink-2', '--bg'], ['--ink-2', '--surface'], ['--ink-2', '--sunken'], ['--ink-2', '--free'],
    ['--ink-3', '--bg'], ['--ink-3', '--surface'], ['--accent', '--bg'], ['--accent', '--surface'],
    ['--accent-ink', '--accent'], ['--accent-ink', '--accent-strong'], ['--accent', '--accent-soft'],
    ['--ok', '--ok-soft'], ['--warn', '--warn-soft'], ['--warn', '--surface'], ['--bad', '--bad-soft'], ['--bad', '--surface'],
    ['--code-key', '--surface'], ['--code-string', '--surface'], ['--code-number', '--surface'],
    ['--code-comment', '--surface'], ['--code-name', '--surface'],
  ];
  it.each([['light', light], ['dark', dark]] as const)('has a contrast of 4.5:1 in the %s theme', (_, theme) => {
    for (const [ink, ground] of pairs) {
      expect(contrast(theme.get(ink)!, theme.get(ground)!), `${ink} on ${ground}`).toBeGreaterThanOrEqual(4.5);
    }
  });

  it('is the same dark theme by choice and by the system', () => {
    expect(themeOf(":root:not([data-theme='light']) {")).toEqual(dark);
  });
});
