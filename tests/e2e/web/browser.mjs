// A Chromium of the distribution with a profile of its own, and a page that remembers every fault in its console.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Set by use(): where the server is, and the key to it. */
export let base = '';
export let key = '';
export function use(cluster) {
  base = cluster.base;
  key = cluster.key;
}

const flags = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

/** A browser context; `close()` ends the browser and removes its profile. */
export async function launch(options = {}) {
  // playwright-core and axe-core as the lock file pins them; nothing happens when they are there.
  execFileSync(fileURLToPath(new URL('install.sh', import.meta.url)), { stdio: ['ignore', 'ignore', 'inherit'] });
  const { chromium } = await import('playwright-core');
  const profile = mkdtempSync(join(tmpdir(), 'aiv-web-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.AIV_CHROMIUM ?? '/usr/bin/chromium',
    args: flags,
    viewport: { width: 1200, height: 800 },
    ...options,
  });
  context.setDefaultTimeout(20_000);
  return {
    context,
    close: async () => {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

/** A page that already has the key, as after a first visit. `faults` fills with what a console would show in red. */
export async function open(context, path = '/', { withKey = true } = {}) {
  const page = await context.newPage();
  const faults = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') faults.push(message.text());
  });
  page.on('pageerror', (error) => faults.push(String(error)));
  if (withKey && key !== '') {
    await page.addInitScript((value) => sessionStorage.setItem('aiv.key', value), key);
  }
  await page.goto(base + path);
  return { page, faults };
}

export const headers = () => (key === '' ? {} : { authorization: `Bearer ${key}` });

export async function list(name) {
  const response = await fetch(`${base}/aiv/v1/${name}`, { headers: headers() });
  if (!response.ok) throw new Error(`GET /aiv/v1/${name}: ${response.status} ${await response.text()}`);
  return (await response.json()).items;
}

/** Waits until `check` gives something true, asking again each 50 ms. */
export async function until(what, check, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`gave up waiting after ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** One streamed answer of the public API with these pieces of text. */
export function sse(pieces, { finish = 'stop', done = true } = {}) {
  const chunk = (delta, finish_reason = null) =>
    `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta, finish_reason }] })}\n\n`;
  return pieces.map((content) => chunk({ content })).join('') + chunk({}, finish) + (done ? 'data: [DONE]\n\n' : '');
}

/** What axe-core (WCAG 2.2 A and AA) finds serious or critical on the page as it is now. */
export async function barriers(page) {
  const source = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  await page.evaluate(source);
  const violations = await page.evaluate(async () => {
    const result = await window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] });
    return result.violations.map((v) => ({ id: v.id, impact: v.impact, help: v.help, where: v.nodes.map((n) => `${n.target} ${n.failureSummary ?? ''}`).slice(0, 3) }));
  });
  return violations.filter((v) => v.impact === 'serious' || v.impact === 'critical');
}
