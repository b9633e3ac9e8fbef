// Routing over unequal cards, with the real gateway and real processes: the mean and the p99 of the time to the last token,
// beside HAProxy with least connections before engines of the same speeds, on the same requests at the same times.
//
//   node bench/routing/run.mjs [--rounds 3] [--requests 400] [--loads 0.5,0.7,0.9] [--scale 0.5] [--seed 1]
//
// Fake engine: eight replicas whose cards let a lone stream have 26 to 110 tokens/s, four slots each; b streams together have
// b^0.65 times that (assumed, not measured on cards). Requests: consecutive ones of the Azure conversation trace where the optional
// test data is present, else Poisson with its means; their times are stretched to the load, their lengths are multiplied by
// --scale, so that a round ends in time. Load 1 is what all slots together can serve.
//
// HAProxy has what is best for it: `leastconn`, and `maxconn` of a server = its slots, so that what must wait does so in one line
// before all servers and not in one engine's. Rounds alternate; the first tenth of each is warm-up and does not count. What the
// gateway knows at the start is the cards' published bandwidth, which here is exactly what paces the engines; what it has learned it
// keeps from round to round.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { Cluster } from '../../tests/e2e/lib/cluster.mjs';
import { aivBin, testData } from '../../tests/e2e/lib/places.mjs';
import { sleep, waitFor } from '../../tests/e2e/lib/wait.mjs';
import { generator, quantile } from '../faults/client.mjs';

// Name and bandwidth as in data/cards.toml.
const CARDS = [
  ['RTX 3090', 936], ['RTX 2080 Ti', 616], ['GTX 1080 Ti', 484], ['RTX 2070', 448],
  ['RTX 3060', 360], ['Tesla T4', 320], ['GTX 1070', 256], ['RX 570', 224],
];
const READ_MIB = 4868; // of a token: 110 tokens/s on the first card
const PROMPT_SPEEDUP = 15; // core/fake_model.hpp
const BATCH = 0.65;
const SLOTS = 4;
const CTX = SLOTS * 16_384;
const MODEL = `fake:lab?weights=512MiB&kv_per_cell=1&compute=1MiB&ctx_train=65536&read=${READ_MIB}MiB&batch=${BATCH}`;
const PROMPT_MAX = 8000;
const haproxyBin = ['/usr/sbin/haproxy', '/usr/local/sbin/haproxy'].find((file) => fs.existsSync(file));

const option = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : process.argv[at + 1];
};
const rounds = Number(option('rounds', 3));
const count = Number(option('requests', 400));
const loads = option('loads', '0.5,0.7,0.9').split(',').map(Number);
const scale = Number(option('scale', 0.5));
const seed = Number(option('seed', 1));
const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });

const tokensPerSecond = ([, gbPerSecond]) => (0.6 * gbPerSecond * 1e9) / (READ_MIB * 1048576);

// [{at (s from the first), prompt, tokens}]
function requestsOf(random) {
  const file = testData('data/AzureLLMInferenceTrace_conv.csv');
  let rows;
  if (file) {
    const lines = fs.readFileSync(file, 'utf8').trim().split('\n').slice(1);
    const from = Math.floor(random() * (lines.length - count));
    rows = lines.slice(from, from + count).map((line) => {
      const [time, prompt, tokens] = line.split(',');
      return { at: Date.parse(`${time.trim().replace(' ', 'T').slice(0, 23)}Z`) / 1000, prompt: Number(prompt), tokens: Number(tokens) };
    });
  } else {
    let at = 0;
    const exponential = (mean) => -Math.log(1 - random()) * mean;
    rows = Array.from({ length: count }, () => ({ at: (at += exponential(1)), prompt: 1 + exponential(1155), tokens: 1 + exponential(211) }));
  }
  return {
    source: file ? 'Azure conversation trace' : 'Poisson',
    rows: rows.map((r) => ({ at: r.at - rows[0].at, prompt: Math.min(PROMPT_MAX, Math.ceil(r.prompt * scale)), tokens: Math.max(1, Math.round(r.tokens * scale)) })),
  };
}

// Requests per second that all slots together serve of this mix.
function capacity(rows) {
  const mean = (pick) => rows.reduce((sum, r) => sum + pick(r), 0) / rows.length;
  const prompt = mean((r) => r.prompt);
  const tokens = mean((r) => r.tokens);
  return CARDS.map(tokensPerSecond).reduce((sum, d) => sum + SLOTS / (prompt / (d * PROMPT_SPEEDUP) + tokens / (d * SLOTS ** (BATCH - 1))), 0);
}

// Words of the fake engine's vocabulary, one token each; another beginning for each request, so that nothing is cached.
function promptText(n, random) {
  const letter = (of) => of[Math.floor(random() * of.length)];
  let text = '';
  for (let i = 0; i < n; ++i) text += ` ${letter('bdfg')}${letter('aeio')}${letter('klmn')}${letter('aeio')}`;
  return text;
}

// {ms to the last token since `due`, first}, or {why}.
function ask(target, request, due) {
  return new Promise((resolve) => {
    const body = JSON.stringify({ model: 'lab', stream: true, max_tokens: request.tokens, messages: [{ role: 'user', content: `#fake tokens=${request.tokens}\n${request.text}` }] });
    const call = http.request(`${target.url}/v1/chat/completions`, {
      method: 'POST',
      agent,
      headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...(target.key ? { authorization: `Bearer ${target.key}` } : {}) },
    });
    call.once('error', (error) => resolve({ why: error.message }));
    call.once('response', (response) => {
      let first = null;
      let tail = '';
      response.on('data', (bytes) => {
        const text = tail + bytes.toString('latin1');
        if (first === null && text.includes('"content":"')) first = Date.now() - due;
        tail = text.slice(-400);
      });
      response.once('end', () => resolve(response.statusCode === 200 && tail.endsWith('data: [DONE]\n\n') ? { ms: Date.now() - due, first } : { why: `status ${response.statusCode} ${tail.slice(-200)}` }));
      response.once('error', (error) => resolve({ why: error.message }));
    });
    call.end(body);
  });
}

async function run(target, rows, rate) {
  const stretch = rows.length / rate / rows.at(-1).at;
  const began = Date.now() + 100;
  const pending = [];
  for (const request of rows) {
    const due = began + request.at * stretch * 1000;
    await sleep(Math.max(0, due - Date.now()));
    pending.push(ask(target, request, due));
  }
  const results = await Promise.all(pending);
  const counted = results.slice(Math.floor(results.length / 10));
  const good = counted.filter((r) => r.ms !== undefined);
  return { ms: good.map((r) => r.ms), first: good.map((r) => r.first), lost: counted.length - good.length, why: counted.find((r) => r.why)?.why };
}

// Engines of the same speeds behind HAProxy. The variable is what an agent tells an engine of its card.
async function startHaproxy() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aivr-'));
  const children = [];
  const stop = () => {
    for (const child of children) child.kill('SIGKILL');
    fs.rmSync(dir, { recursive: true, force: true });
  };
  try {
    const sockets = CARDS.map(([, gbPerSecond], i) => {
      const socket = path.join(dir, `e${i}.sock`);
      const args = ['-m', MODEL, '--host', socket, '-dev', 'Fake0', '-np', String(SLOTS), '-c', String(CTX), '--no-kv-unified', '-lv', '1'];
      children.push(spawn(path.join(path.dirname(aivBin), 'aiv-fake-engine'), args, { stdio: 'ignore', env: { AIV_FAKE_BANDWIDTH: String(gbPerSecond * 1e9) } }));
      return socket;
    });
    const socket = path.join(dir, 'clients.sock');
    const file = path.join(dir, 'haproxy.cfg');
    const port = await new Promise((resolve) => {
      const server = http.createServer().listen(0, '127.0.0.1', () => {
        const { port: free } = server.address();
        server.close(() => resolve(free));
      });
    });
    fs.writeFileSync(file, `
global
  nbthread 1
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout queue 300s
frontend clients
  bind 127.0.0.1:${port}
  default_backend engines
backend engines
  balance leastconn
${sockets.map((at, i) => `  server s${i} unix@${at} maxconn ${SLOTS}`).join('\n')}
`);
    await waitFor('the engines listen', () => sockets.every((at) => fs.existsSync(at)), { timeoutMs: 30_000 });
    children.push(spawn(haproxyBin, ['-f', file, '-q'], { stdio: ['ignore', 'ignore', 'inherit'] }));
    const target = { url: `http://127.0.0.1:${port}`, key: '' };
    await waitFor('HAProxy answers', async () => (await fetch(`${target.url}/health`).catch(() => null))?.ok, { timeoutMs: 30_000 });
    return { target, stop };
  } catch (error) {
    stop();
    throw error;
  }
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const median = (values) => quantile(values, 0.5);
const seconds = (ms) => (ms / 1000).toFixed(2);

if (!haproxyBin) {
  console.log('bench/routing: HAProxy is not installed (Debian: apt-get install haproxy), so there is nothing to compare with');
  process.exit(0);
}
const random = generator(seed);
const { source, rows } = requestsOf(random);
for (const row of rows) row.text = promptText(row.prompt, random);
const full = capacity(rows);
console.log(`fake engine, real processes; ${new Date().toISOString()}, ${os.cpus().length} cores, load ${os.loadavg()[0].toFixed(1)} before the run`);
console.log(`seed ${seed}, ${count} requests a round (${source}, lengths x ${scale}: mean ${mean(rows.map((r) => r.prompt)).toFixed(0)} + ${mean(rows.map((r) => r.tokens)).toFixed(0)} tokens), ${rounds} rounds, capacity ${full.toFixed(2)} requests/s`);
console.log(`tokens/s of a lone stream: ${CARDS.map((card) => `${card[0]} ${tokensPerSecond(card).toFixed(0)}`).join(', ')}\n`);

const cluster = await Cluster.start({ gpus: CARDS.map(([name]) => `${name}:8GiB`).join(';'), args: ['--no-models'] });
let rival = null;
try {
  rival = await startHaproxy();
  const up = await cluster.cli('up', MODEL, '--name', 'lab', '--replicas', String(CARDS.length), '--slots', String(SLOTS), '--ctx', String(CTX));
  if (up.code !== 0) throw new Error(up.stderr);
  await cluster.waitForReplicas('lab', CARDS.length);
  const targets = { ours: { url: cluster.url, key: cluster.key }, haproxy: rival.target };
  console.log('| load | ours: mean / p99 | HAProxy leastconn: mean / p99 | ratio of means | ratio of p99 | first token p99, ours / HAProxy | not answered |');
  console.log('| --- | --- | --- | --- | --- | --- | --- |');
  for (const load of loads) {
    const results = { ours: [], haproxy: [] };
    for (let round = 0; round < rounds; ++round)
      for (const name of round % 2 ? ['haproxy', 'ours'] : ['ours', 'haproxy']) results[name].push(await run(targets[name], rows, load * full));
    const all = (name, what) => results[name].flatMap((r) => r[what]);
    const cell = (name) => `${seconds(mean(all(name, 'ms')))} / ${seconds(quantile(all(name, 'ms'), 0.99))}`;
    const ratio = (of) => median(results.ours.map((r, i) => of(r.ms) / of(results.haproxy[i].ms))).toFixed(2);
    const lost = (name) => results[name].reduce((sum, r) => sum + r.lost, 0);
    console.log(`| ${load.toFixed(2)} | ${cell('ours')} | ${cell('haproxy')} | ${ratio(mean)} | ${ratio((ms) => quantile(ms, 0.99))} | ${seconds(quantile(all('ours', 'first'), 0.99))} / ${seconds(quantile(all('haproxy', 'first'), 0.99))} | ${lost('ours')} / ${lost('haproxy')} |`);
    for (const name of Object.keys(results)) for (const r of results[name]) if (r.why) console.log(`  ${name}: ${r.why}`);
  }
  console.log('\nSeconds to the last token, from the moment at which a request was due; all rounds together; ratios are medians over the rounds.');
} finally {
  rival?.stop();
  await cluster.stop();
}
