// The open-loop client of the fault runs, and what counts as a good request.
//
// A request is good when its status is 200, its stream ended with finish_reason and [DONE], its text is byte for byte that
// of an undisturbed run, its first token came in time and no gap was longer than 10 s. Requests are sent at Poisson times
// whether or not earlier ones have ended; times count from the moment at which a request should have been sent, so that a
// stalled service cannot hide behind a client that waits for it.
import http from 'node:http';
import { sleep } from '../../tests/e2e/lib/wait.mjs';

export const GAP_MS = 10_000;
const REQUEST_LIMIT_MS = 60_000;
const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });

// mulberry32: small, seeded, the same everywhere.
export function generator(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(3)} %` : '-');
export const quantile = (values, q) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))] ?? 0;

// The lower end of Wilson's 95 % interval for `good` of `all`.
export function wilson(good, all) {
  if (all === 0) return 0;
  const z = 1.96;
  const p = good / all;
  return (p + (z * z) / (2 * all) - z * Math.sqrt((p * (1 - p)) / all + (z * z) / (4 * all * all))) / (1 + (z * z) / all);
}

// Answers of 0.4 to 1.5 s of the fake engine: at any moment several streams are in the middle.
export const PROMPTS = Array.from({ length: 12 }, (_, i) => `#fake tokens=${40 + 10 * i} token_ms=10\nprompt ${i}`);

function open(target, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(`${target.url}/v1/chat/completions`, {
      method: 'POST',
      agent,
      timeout: REQUEST_LIMIT_MS,
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...(target.key ? { authorization: `Bearer ${target.key}` } : {}) },
    });
    request.once('response', resolve);
    request.once('error', reject);
    request.once('timeout', () => request.destroy(new Error(`nothing for ${REQUEST_LIMIT_MS} ms`)));
    request.end(body);
  });
}

// target: {url, key, model}. `kind` of the result: complete, refused (before a token), broken (an error event or a cut
// connection in mid-stream), silent (ended as if all were well, but is not).
export async function ask(target, prompt, due = Date.now()) {
  const result = { prompt, due, sent: Date.now(), kind: 'refused', text: '', ttft: null, gap: 0, why: '', id: '' };
  let done = false;
  let finished = false;
  let last = 0;
  try {
    const response = await open(target, JSON.stringify({ model: target.model, stream: true, messages: [{ role: 'user', content: prompt }] }));
    result.id = response.headers['x-request-id'] ?? '';
    response.setEncoding('utf8');
    let buffer = '';
    for await (const text of response) {
      buffer += text;
      if (response.statusCode !== 200) continue;
      for (let end = buffer.indexOf('\n\n'); end >= 0; end = buffer.indexOf('\n\n')) {
        const block = buffer.slice(0, end);
        buffer = buffer.slice(end + 2);
        if (!block.startsWith('data: ')) continue;
        if (block === 'data: [DONE]') {
          done = true;
          continue;
        }
        const event = JSON.parse(block.slice(6));
        if (event.error) throw new Error(event.error.message);
        const delta = event.choices[0]?.delta?.content ?? '';
        finished ||= Boolean(event.choices[0]?.finish_reason);
        if (!delta) continue;
        const now = Date.now();
        if (result.ttft === null) result.ttft = Math.round(now - due);
        else result.gap = Math.max(result.gap, now - last);
        last = now;
        result.kind = 'broken';
        result.text += delta;
      }
    }
    if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}: ${buffer.slice(0, 200)}`);
    if (!response.complete) throw new Error('the connection was cut');
    result.kind = done && finished ? 'complete' : 'silent';
  } catch (error) {
    result.why = error.message;
  }
  result.ended = Date.now();
  return result;
}

// Sends at Poisson times until `running()` says no, then waits for what is under way.
export async function load(target, { rate, random, running }) {
  const pending = [];
  let due = Date.now();
  while (running()) {
    due += (-Math.log(1 - random()) * 1000) / rate;
    const prompt = PROMPTS[Math.floor(random() * PROMPTS.length)];
    await sleep(Math.max(0, due - Date.now()));
    pending.push(ask(target, prompt, due));
  }
  return Promise.all(pending);
}

// Turns `complete` into good, late, gap or silent.
export function judge(results, expected, ttftLimit) {
  for (const r of results) {
    if (r.kind === 'complete' && r.text !== expected.get(r.prompt)) r.kind = 'silent';
    if (r.kind === 'complete') r.kind = r.ttft > ttftLimit ? 'late' : r.gap > GAP_MS ? 'gap' : 'good';
  }
  return results;
}

// The smallest share of good requests among those due within any ten seconds that had at least ten.
export function worstWindow(results) {
  const sorted = [...results].sort((a, b) => a.due - b.due);
  let worst = 1;
  for (let from = 0, to = 0; from < sorted.length; ++from) {
    while (to < sorted.length && sorted[to].due < sorted[from].due + 10_000) ++to;
    if (to - from < 10) continue;
    worst = Math.min(worst, sorted.slice(from, to).filter((r) => r.kind === 'good').length / (to - from));
  }
  return worst;
}
