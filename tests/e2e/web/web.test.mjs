// The page in a real browser, against the cluster of cluster.mjs: `aiv dev --engine fake` answers at once and at a set
// pace, a real engine does as well; web/dev/mock-server.mjs serves for work on the page alone (AIV_MOCK=1).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { barriers, base, key, launch, list, open, sse, until, use } from './browser.mjs';
import { skip, startCluster } from './cluster.mjs';

/** The fake engine obeys the first line, the mock "#slow"; a real model simply talks. */
const SLOW = '#fake tokens=1500 token_ms=20\n#slow Tell a long story';

let cluster;
let browser;
before(async () => {
  if (skip) return;
  cluster = await startCluster();
  use(cluster);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await cluster?.stop();
});

const it = (name, body) =>
  test(name, { skip, timeout: 90_000 }, async (t) => {
    const pages = [];
    const visit = async (path, options) => {
      const opened = await open(browser.context, path, options);
      pages.push(opened.page);
      return opened;
    };
    try {
      await body(visit, t);
    } finally {
      for (const page of pages) await page.close();
    }
  });

const ready = (page) => page.waitForFunction(() => {
  const select = document.querySelector('[data-testid=model-select]');
  return select !== null && !select.disabled && select.value !== '';
});

async function ask(page, text) {
  await ready(page);
  await page.getByTestId('chat-input').fill(text);
  await page.getByTestId('chat-send').click();
}

const answer = (page) => page.getByTestId('chat-answer').last();
const stateOf = (page, state) => page.locator(`[data-testid=chat-answer][data-state=${state}]`).last().waitFor({ state: 'attached' });

it('a visitor without a key is asked for one, and gets in with it', async (visit, t) => {
  if (key === '') return t.skip('the server asks for no key');
  const { page, faults } = await visit('/cluster', { withKey: false });
  await page.getByText('This server asks for a key').waitFor();
  assert.deepEqual(faults, [], 'without a row of refused requests first');
  await page.getByTestId('key-input').fill('aiv-0000000000-nobody');
  await page.getByTestId('key-save').click();
  await page.getByText('does not know this key').waitFor();
  await page.getByTestId('key-input').fill(key);
  await page.getByTestId('key-save').click();
  await page.getByTestId('node-row').first().waitFor();
  const kept = await page.evaluate(() => [sessionStorage.getItem('aiv.key'), localStorage.getItem('aiv.key')]);
  assert.deepEqual(kept, [key, null], 'a key is kept for the tab only, unless asked otherwise');
});

it('an answer streams in piece by piece and says where it came from', async (visit) => {
  const { page, faults } = await visit('/');
  await ready(page);
  await page.evaluate(() => {
    window.lengths = [];
    new MutationObserver(() => {
      const all = document.querySelectorAll('[data-testid=chat-answer]');
      const length = all[all.length - 1]?.textContent?.length ?? 0;
      if (length > 0 && length !== window.lengths.at(-1)) window.lengths.push(length);
    }).observe(document.body, { childList: true, subtree: true, characterData: true });
  });
  await ask(page, '#fake tokens=60 token_ms=20\n#long Once upon a time');
  await stateOf(page, 'done');
  const lengths = await page.evaluate(() => window.lengths);
  assert.ok(lengths.length >= 3, `the text was seen growing: ${lengths}`);
  assert.ok(lengths.every((n, i) => i === 0 || n > lengths[i - 1]), `and only growing: ${lengths}`);
  assert.ok((await answer(page).innerText()).trim().length > 0);
  const model = await page.getByTestId('model-select').inputValue();
  const origin = await page.getByTestId('chat-origin').last().innerText();
  assert.match(origin, /first token \d+\.\d+ s/);
  assert.ok(origin.startsWith(model), origin);
  await until('the live region speaks', async () => (await page.getByTestId('chat-live').innerText()).length > 0);
  assert.deepEqual(faults, []);
});

it('the stop button ends the answer at once and frees the slot', async (visit) => {
  const { page, faults } = await visit('/');
  await ask(page, SLOW);
  await page.getByTestId('chat-stop').waitFor();
  await until('the first text', async () => (await answer(page).innerText()).trim() !== '');
  await page.getByTestId('chat-stop').click();
  await stateOf(page, 'stopped');
  const text = await answer(page).innerText();
  await page.getByTestId('chat-send').waitFor();
  const busy = async () => (await list('replicas')).reduce((sum, r) => sum + (r.slots_busy ?? 0), 0);
  if (!process.env.AIV_MOCK) await until('no slot is busy', async () => (await busy()) === 0, 5000);
  assert.equal(await answer(page).innerText(), text, 'nothing was added after the stop');
  assert.deepEqual(faults, []);
});

it('an answer can be copied and asked for again, and the question changed', async (visit) => {
  await browser.context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: base });
  const { page, faults } = await visit('/');
  await ask(page, 'Say something');
  await stateOf(page, 'done');
  await page.getByTestId('chat-copy').last().click();
  await page.getByText('Copied').waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  const words = (s) => s.replace(/\W+/g, '');
  assert.equal(words(copied), words(await answer(page).innerText()));
  let asked = 0;
  page.on('request', (request) => (asked += request.url().endsWith('/v1/chat/completions') ? 1 : 0));
  await page.getByTestId('chat-regenerate').last().click();
  await until('a second question', () => asked === 1);
  await stateOf(page, 'done');
  assert.equal(await page.getByTestId('chat-answer').count(), 1, 'the new answer takes the place of the old');
  await page.getByTestId('chat-question').last().hover();
  await page.getByTestId('chat-edit').last().click();
  assert.equal(await page.getByTestId('chat-input').inputValue(), 'Say something');
  assert.equal(await page.getByTestId('chat-answer').count(), 0, 'the question is taken back with its answer');
  assert.deepEqual(faults, []);
});

it('the map draws every GPU with its true size, and its segments add up', async (visit) => {
  const devices = await list('devices');
  assert.ok(devices.length > 0, 'the cluster has a GPU');
  const { page, faults } = await visit('/cluster');
  await until('all bars', async () => (await page.getByTestId('gpu-bar').count()) === devices.length);
  const bars = await page.getByTestId('gpu-bar').evaluateAll((elements) =>
    elements.map((bar) => ({
      ...bar.dataset,
      role: bar.getAttribute('role'),
      label: bar.getAttribute('aria-label'),
      width: bar.getBoundingClientRect().width,
      card: bar.parentElement.textContent,
      segments: [...bar.querySelectorAll('[data-testid=gpu-segment]')].map((s) => ({
        kind: s.dataset.kind, bytes: Number(s.dataset.bytes), width: s.getBoundingClientRect().width,
      })),
    })),
  );
  const kinds = ['weights', 'kv_used', 'kv_reserved', 'compute', 'foreign', 'free'];
  const scale = bars[0].width / Number(bars[0].vramBytes);
  for (const bar of bars) {
    const device = devices.find((d) => d.id === bar.device);
    assert.ok(device, `${bar.device} is a device of the API`);
    assert.equal(Number(bar.vramBytes), device.vram_bytes);
    assert.equal(bar.name, device.name);
    assert.equal(bar.segments.reduce((sum, s) => sum + s.bytes, 0), device.vram_bytes, `${bar.device} adds up`);
    assert.ok(bar.segments.every((s) => kinds.includes(s.kind) && s.bytes > 0));
    assert.ok(Math.abs(bar.width / (scale * device.vram_bytes) - 1) < 0.01, 'one scale for the whole page');
    const drawn = bar.segments.reduce((sum, s) => sum + s.width, 0);
    assert.ok(Math.abs(drawn - bar.width) < 1, `segments fill the bar: ${drawn} of ${bar.width}`);
    for (const s of bar.segments) {
      assert.ok(Math.abs(s.width - (bar.width * s.bytes) / device.vram_bytes) < 1, `${s.kind} is drawn to scale`);
    }
    assert.equal(bar.role, 'img');
    assert.match(bar.label, /GiB|MiB/);
    assert.equal(bar.card.includes('software GPU'), device.kind === 'software', 'a software GPU is called so, and no other');
  }
  const held = (await list('replicas')).filter((r) => r.state === 'ready').flatMap((r) => r.devices ?? []);
  for (const part of held) {
    const bar = bars.find((b) => b.device === part.id);
    assert.ok(bar.segments.some((s) => s.kind === 'weights'), `${part.id} shows the weights of its replica`);
  }
  assert.equal(await page.getByTestId('node-row').count(), (await list('nodes')).length);
  await page.getByTestId('show-table').click();
  await page.getByTestId('cluster-table').waitFor();
  assert.equal(await page.getByTestId('cluster-table').locator('tbody tr').count(), devices.length);
  assert.deepEqual(faults, []);
});

it('the deployments are listed with their state', async (visit) => {
  const { page, faults } = await visit('/deployments');
  const deployments = await list('deployments');
  await until('all rows', async () => (await page.getByTestId('deployment-row').count()) === deployments.length);
  for (const d of deployments) {
    const row = page.locator(`[data-testid=deployment-row][data-name="${d.name}"]`);
    const text = await row.innerText();
    assert.ok(text.includes(d.state), text);
    if (d.reason) assert.ok(text.includes(d.reason), text);
  }
  assert.deepEqual(faults, []);
});

it('hostile text stays text: in an answer, in names, in errors', async (visit) => {
  const { page, faults } = await visit('/');
  const hostile = '<img src=x onerror="window.pwned=1">';
  const pieces = [
    `Look ${hostile}<script>window.pwned=1</script><svg onload=window.pwned=1> [click me](javascript:window.pwned=1) `,
    '![leak](https://leak.invalid/p.png?chat=secret) <a href="https://example.org" onclick="window.pwned=1">raw</a>\n\n',
    '```html\n<img src=x onerror=window.pwned=1>\n```\n\n[fine](https://example.org/)',
  ];
  const outside = [];
  page.on('request', (request) => {
    if (!request.url().startsWith(base)) outside.push(request.url());
  });
  await page.route('**/v1/chat/completions', (route) =>
    route.fulfill({ status: 200, contentType: 'text/event-stream', body: sse(pieces) }));
  await ask(page, hostile);
  await stateOf(page, 'done');
  const inside = answer(page);
  assert.equal(await inside.locator('img, script, svg, iframe').count(), 0);
  for (const link of await inside.locator('a').all()) {
    assert.match(await link.getAttribute('href'), /^https?:/);
    assert.equal(await link.getAttribute('rel'), 'noopener noreferrer');
    assert.equal(await link.getAttribute('target'), '_blank');
  }
  await inside.getByText('click me').click();
  assert.equal(await page.getByTestId('chat-question').locator('img').count(), 0);

  await page.route('**/aiv/v1/nodes', (route) => route.fulfill({ json: { items: [{ id: hostile, state: hostile, reason: hostile }], revision: 1 } }));
  await page.route('**/aiv/v1/devices', (route) => route.fulfill({
    json: { items: [{ id: `${hostile}/0`, node: hostile, name: hostile, kind: hostile, vram_bytes: 8 * 1024 ** 3, refused: hostile }], revision: 1 },
  }));
  await page.route('**/aiv/v1/replicas', (route) => route.fulfill({
    json: { items: [{ id: hostile, deployment: hostile, state: 'failed', reason: hostile, devices: [{ id: `${hostile}/0`, bytes: 5 }] }], revision: 1 },
  }));
  await page.route('**/aiv/v1/deployments', (route) => route.fulfill({ json: { items: [{ name: hostile, state: hostile, reason: hostile }], revision: 1 } }));
  await page.getByTestId('nav-cluster').click();
  await page.getByRole('heading', { name: hostile }).waitFor();
  await page.getByTestId('nav-deployments').click();
  await page.getByTestId('deployment-row').getByRole('heading', { name: hostile }).waitFor();
  assert.equal(await page.locator('main img').count(), 0);
  assert.equal(await page.evaluate(() => window.pwned), undefined);
  assert.deepEqual(outside, [], 'nothing was fetched from elsewhere');
  assert.deepEqual(faults, []);
});

it('a refusal and a broken answer are told in full words', async (visit) => {
  const { page } = await visit('/');
  await page.route('**/v1/chat/completions', (route) => route.fulfill({
    status: 503, headers: { 'retry-after': '14', 'x-request-id': 'req-7' }, contentType: 'application/json',
    body: JSON.stringify({ error: { message: 'loading on lab-pc3, about 14 s', type: 'service_unavailable', param: null, code: 'loading' } }),
  }));
  await ask(page, 'Hello');
  const refusal = await page.getByTestId('chat-error').innerText();
  for (const part of ['The model is still loading', 'loading on lab-pc3, about 14 s', 'Try again in about 14 s', 'req-7']) {
    assert.ok(refusal.includes(part), `${part} in: ${refusal}`);
  }
  await page.unroute('**/v1/chat/completions');
  await page.route('**/v1/chat/completions', (route) => route.fulfill({
    status: 200, contentType: 'text/event-stream',
    body: sse(['Half an ans'], { done: false }).replace(/data: \{[^\n]*"finish_reason":"stop"[^\n]*\n\n/, ''),
  }));
  await ask(page, 'Again');
  await page.getByText('The answer was cut off').waitFor();
  assert.ok((await answer(page).innerText()).includes('Half an ans'), 'what arrived stays on the page');
});

it('old figures are never shown as live: a lost server is named with the age of the picture', async (visit) => {
  const { page } = await visit('/cluster');
  await page.getByTestId('gpu-bar').first().waitFor();
  await page.route('**/aiv/v1/*', (route) => route.abort());
  await page.getByText('The server cannot be reached').waitFor();
  await page.getByText(/was true (just now|\d+ s ago)/).waitFor();
  assert.ok((await page.getByTestId('gpu-bar').count()) > 0, 'the last picture stays');
  await page.unroute('**/aiv/v1/*');
  await page.getByText('The server cannot be reached').waitFor({ state: 'detached' });
});

it('the theme follows the system, can be chosen, and is kept', async (visit) => {
  const { page, faults } = await visit('/');
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const brightness = async () => (await ground()).match(/\d+/g).slice(0, 3).reduce((sum, n) => sum + Number(n), 0);
  await page.emulateMedia({ colorScheme: 'dark' });
  assert.ok((await brightness()) < 150, 'dark by the system');
  await page.emulateMedia({ colorScheme: 'light' });
  assert.ok((await brightness()) > 600, 'light by the system');
  const toggle = page.getByTestId('theme-toggle');
  while (!(await toggle.getAttribute('aria-label')).startsWith('Theme is dark')) await toggle.click();
  assert.ok((await brightness()) < 150, 'dark by choice');
  await page.reload();
  assert.ok((await brightness()) < 150, 'after a reload too');
  while (!(await toggle.getAttribute('aria-label')).startsWith('Theme is system')) await toggle.click();
  assert.ok((await brightness()) > 600);
  assert.deepEqual(faults, []);
});

it('all of it fits a screen 360 pixels wide', async (visit) => {
  const { page, faults } = await visit('/');
  await page.setViewportSize({ width: 360, height: 700 });
  await ask(page, 'Say something short');
  await stateOf(page, 'done');
  for (const [path, mark] of [['/', 'chat-input'], ['/cluster', 'gpu-bar'], ['/deployments', 'nav-deployments']]) {
    if (path !== '/') await page.getByTestId(`nav-${path.slice(1)}`).click();
    await page.getByTestId(mark).first().waitFor();
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 360, `${path} is ${wide} px wide`);
  }
  assert.deepEqual(faults, []);
});

it('a chat needs no mouse', async (visit) => {
  const { page, faults } = await visit('/');
  await ready(page);
  for (let i = 0; i < 20 && (await page.evaluate(() => document.activeElement?.dataset.testid)) !== 'chat-input'; i++) {
    await page.keyboard.press('Tab');
  }
  assert.equal(await page.evaluate(() => document.activeElement?.dataset.testid), 'chat-input');
  await page.keyboard.type('One');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('Two');
  assert.equal(await page.getByTestId('chat-input').inputValue(), 'One\nTwo');
  await page.keyboard.press('Enter');
  await stateOf(page, 'done');
  await page.getByTestId('chat-input').fill(SLOW);
  await page.keyboard.press('Enter');
  await page.getByTestId('chat-stop').waitFor();
  await page.keyboard.press('Escape');
  await stateOf(page, 'stopped');
  assert.deepEqual(faults, []);
});

it('axe finds no serious barrier on any page, in either theme', async (visit) => {
  const { page } = await visit('/');
  await ask(page, '#code Show me some code');
  await stateOf(page, 'done');
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    for (const [handle, mark] of [['nav-chat', 'chat-input'], ['nav-cluster', 'gpu-bar'], ['nav-deployments', 'deployment-row'], ['nav-cluster', 'show-table'], ['key-open', 'key-input']]) {
      await page.getByTestId(handle).click();
      await page.getByTestId(mark).first().waitFor();
      if (mark === 'show-table') await page.getByTestId(mark).click();
      assert.deepEqual(await barriers(page), [], `${mark}, ${colorScheme}`);
    }
  }
});

it('every page has an address, and the way back works', async (visit) => {
  const { page, faults } = await visit('/cluster');
  await page.getByTestId('gpu-bar').first().waitFor();
  assert.equal(await page.getByTestId('nav-cluster').getAttribute('aria-current'), 'page');
  await page.getByTestId('nav-chat').click();
  await page.getByTestId('chat-input').waitFor();
  assert.equal(new URL(page.url()).pathname, '/');
  await page.goBack();
  await page.getByTestId('gpu-bar').first().waitFor();
  assert.equal(await page.title(), 'Cluster · AIvailable');
  assert.deepEqual(faults, []);
  const lost = await page.goto(`${base}/no/such/page`);
  await page.getByText('There is no page here').waitFor();
  if (!process.env.AIV_MOCK) assert.equal(lost.status(), 404, 'which the console tells as well');
});

test('the server sends the page with its policy, and files that need not be fetched twice', { skip: skip || (process.env.AIV_MOCK && 'the mock sends no such headers') }, async () => {
  const index = await fetch(`${base}/`);
  assert.match(index.headers.get('content-security-policy'), /default-src 'self'/);
  assert.equal(index.headers.get('x-content-type-options'), 'nosniff');
  assert.equal(index.headers.get('cache-control'), 'no-cache');
  const again = await fetch(`${base}/`, { headers: { 'if-none-match': index.headers.get('etag') } });
  assert.equal(again.status, 304);
  const script = (await index.text()).match(/\/assets\/[^"]+\.js/)[0];
  const file = await fetch(base + script);
  assert.match(file.headers.get('cache-control'), /immutable/);
  assert.equal(file.headers.get('content-encoding'), 'gzip');
  assert.equal((await fetch(`${base}/assets/gone-00000000.js`)).status, 404);
  assert.equal((await fetch(`${base}/aiv/v1/no-such-thing`, { headers: { authorization: `Bearer ${key}` } })).headers.get('content-type')?.startsWith('text/html'), false);
});
