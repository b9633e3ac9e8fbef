// The fault run: an open-loop client outside the gateway while parts of the cluster are killed and stopped by a seeded
// schedule; what came of each request, judged by the text it should have had. Fake engine, real processes: it measures
// availability, never speed.
//
//   node bench/faults/run.mjs [--seed 1] [--faults 60] [--rate 4] [--nodes 3]
//
// A request is good when its status is 200, its stream ended with finish_reason and [DONE], its text is byte for byte that
// of an undisturbed run, its first token came in time (1 s, or five times the undisturbed p99 where that is more) and no gap
// was longer than 10 s. Requests are sent at Poisson times whether or not earlier ones have ended; times count from the
// moment at which a request should have been sent. Faults do not overlap: the next one comes when all replicas are ready
// again. A control run without faults comes first and must be all good, or the figures mean nothing.
import { Cluster } from '../../tests/e2e/lib/cluster.mjs';
import { isAlive, killHard, stopProcess } from '../../tests/e2e/lib/processes.mjs';
import { sleep, waitFor } from '../../tests/e2e/lib/wait.mjs';

const MODEL = 'fake-small';
const KINDS = [
  ['engine kill', 0.4],
  ['engine stop', 0.2],
  ['agent kill', 0.2],
  ['node kill', 0.1],
  ['controller kill', 0.1],
];
const STOPPED_MS = 15_000;
const GAP_MS = 10_000;
const GPUS = ['GTX 1080:8GiB', 'RX 580:8GiB', 'RTX 3060:12GiB', 'GTX 1070:8GiB'];

const option = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : Number(process.argv[at + 1]);
};
const seed = option('seed', 1);
const faultCount = option('faults', 60);
const rate = option('rate', 4);
const nodes = option('nodes', 3);

// mulberry32: small, seeded, the same everywhere.
function generator(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
const random = generator(seed);
const pick = (list) => list[Math.floor(random() * list.length)];
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(3)} %` : '-');
const quantile = (values, q) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))] ?? 0;

// Answers of 0.4 to 1.5 s: at any moment several streams are in the middle, and two nodes can carry the load of three.
const PROMPTS = Array.from({ length: 12 }, (_, i) => `#fake tokens=${40 + 10 * i} token_ms=10\nprompt ${i}`);

async function ask(cluster, prompt, due) {
  const result = { due, kind: 'refused', text: '', ttft: null, gap: 0, why: '' };
  let done = false;
  let finished = false;
  let last = Date.now();
  try {
    const body = { model: MODEL, stream: true, messages: [{ role: 'user', content: prompt }] };
    const response = await cluster.fetch('/v1/chat/completions', { method: 'POST', body });
    if (response.status !== 200) throw new Error(`status ${response.status}: ${(await response.text()).slice(0, 200)}`);
    const decoder = new TextDecoder();
    let buffer = '';
    for await (const bytes of response.body) {
      buffer += decoder.decode(bytes, { stream: true });
      for (let end = buffer.indexOf('\n\n'); end >= 0; end = buffer.indexOf('\n\n')) {
        const block = buffer.slice(0, end);
        buffer = buffer.slice(end + 2);
        if (!block.startsWith('data: ')) continue;
        const now = Date.now();
        if (result.ttft === null) result.ttft = now - due;
        else result.gap = Math.max(result.gap, now - last);
        last = now;
        if (block === 'data: [DONE]') {
          done = true;
          continue;
        }
        const event = JSON.parse(block.slice(6));
        if (event.error) throw new Error(event.error.message);
        result.kind = 'broken';
        result.text += event.choices[0]?.delta?.content ?? '';
        finished ||= Boolean(event.choices[0]?.finish_reason);
      }
    }
    result.kind = done && finished ? 'complete' : 'silent';
  } catch (error) {
    result.why = error.message;
  }
  result.ended = Date.now();
  return result;
}

// Sends at Poisson times until `running()` says no, then waits for what is under way.
async function load(cluster, running) {
  const pending = [];
  let due = Date.now();
  while (running()) {
    due += (-Math.log(1 - random()) * 1000) / rate;
    const prompt = pick(PROMPTS);
    await sleep(Math.max(0, due - Date.now()));
    pending.push(ask(cluster, prompt, due).then((result) => ({ ...result, prompt })));
  }
  return Promise.all(pending);
}

function judge(results, expected, ttftLimit) {
  for (const r of results) {
    if (r.kind === 'complete' && r.text !== expected.get(r.prompt)) r.kind = 'silent';
    if (r.kind === 'complete') r.kind = r.ttft > ttftLimit ? 'late' : r.gap > GAP_MS ? 'gap' : 'good';
  }
  return results;
}

async function breakSomething(cluster, kind) {
  const replicas = (await cluster.replicas(MODEL)).filter((r) => r.state === 'ready');
  const busiest = replicas.sort((a, b) => b.slots_busy - a.slots_busy)[0];
  switch (kind) {
    case 'engine kill':
      return killHard(busiest.pid);
    case 'engine stop':
      await stopProcess(busiest.pid);
      await sleep(STOPPED_MS);
      if (isAlive(busiest.pid)) process.kill(busiest.pid, 'SIGCONT');
      return undefined;
    case 'agent kill':
      return killHard(cluster.agentPid(busiest.node));
    case 'node kill':
      await cluster.cli('dev', 'kill', busiest.node, '--data', cluster.dir);
      await sleep(5000);
      return cluster.cli('dev', 'start', busiest.node, '--data', cluster.dir);
    case 'controller kill':
      return cluster.cli('dev', 'kill', 'controller', '--data', cluster.dir);
  }
  throw new Error(kind);
}

async function whole(cluster) {
  await waitFor(
    'all replicas are ready and nodes up',
    async () => {
      const ready = (await cluster.replicas(MODEL)).filter((r) => r.state === 'ready');
      const up = (await cluster.items('nodes')).filter((n) => n.state === 'ready');
      for (const { id } of (await cluster.items('nodes')).filter((n) => n.state !== 'ready')) await cluster.cli('dev', 'start', id, '--data', cluster.dir);
      return ready.length === nodes && up.length === nodes;
    },
    { timeoutMs: 60_000, everyMs: 200 },
  );
}

const metric = async (cluster, pattern) => {
  const text = await (await cluster.fetch('/metrics')).text();
  return [...text.matchAll(new RegExp(`^aivailable_${pattern} (\\d+)`, 'gm'))].reduce((sum, m) => sum + Number(m[1]), 0);
};

const counts = (results) => {
  const by = {};
  for (const { kind } of results) by[kind] = (by[kind] ?? 0) + 1;
  return by;
};

// The smallest share of good requests among those due within any ten seconds that had at least ten.
function worstWindow(results) {
  const sorted = [...results].sort((a, b) => a.due - b.due);
  let worst = 1;
  for (let from = 0, to = 0; from < sorted.length; ++from) {
    while (to < sorted.length && sorted[to].due < sorted[from].due + 10_000) ++to;
    if (to - from < 10) continue;
    worst = Math.min(worst, sorted.slice(from, to).filter((r) => r.kind === 'good').length / (to - from));
  }
  return worst;
}

const schedule = Array.from({ length: faultCount }, () => {
  let x = random();
  return (KINDS.find(([, share]) => (x -= share) < 0) ?? KINDS[0])[0];
});
console.log(`seed ${seed}, ${faultCount} faults on ${nodes} nodes, ${rate} requests/s (fake engine, real processes)`);
console.log(`schedule: ${schedule.join(', ')}`);

const cluster = await Cluster.start({ gpus: GPUS.slice(0, nodes).join(';') });
try {
  await cluster.waitForReplicas(MODEL, nodes);
  const expected = new Map();
  for (const prompt of PROMPTS) expected.set(prompt, (await ask(cluster, prompt, Date.now())).text);
  const controlEnd = Date.now() + 20_000;
  const control = await load(cluster, () => Date.now() < controlEnd);
  const ttftLimit = Math.max(1000, 5 * quantile(control.map((r) => r.ttft ?? GAP_MS), 0.99));
  judge(control, expected, ttftLimit);
  const controlGood = control.filter((r) => r.kind === 'good').length;
  console.log(`control: ${control.length} requests, ${percent(controlGood, control.length)} good; first token within ${ttftLimit} ms counts as in time`);

  let going = true;
  const requests = load(cluster, () => going);
  const faults = [];
  for (const kind of schedule) {
    await whole(cluster);
    await sleep(1000 + 1000 * random());
    const at = Date.now();
    await breakSomething(cluster, kind);
    faults.push({ kind, at });
  }
  await whole(cluster);
  await sleep(3000);
  going = false;
  const results = judge(await requests, expected, ttftLimit);

  const good = results.filter((r) => r.kind === 'good').length;
  const resumed = await metric(cluster, 'failovers_total\\{[^}]*phase="decode",result="recovered"\\}');
  const cut = await metric(cluster, 'failovers_total\\{[^}]*phase="decode",result="failed"\\}');
  const silent = results.filter((r) => r.kind === 'silent').length;
  // Nothing of it had arrived when a fault came, or none came while it ran.
  const untouched = results.filter((r) => !faults.some((f) => r.ttft !== null && f.at > r.due + r.ttft && f.at < r.ended));
  const untouchedGood = untouched.filter((r) => r.kind === 'good').length;
  console.log(`\nrequests                         ${results.length}`);
  console.log(`good                             ${good} (${percent(good, results.length)})`);
  console.log(`not good, by kind                ${JSON.stringify(counts(results.filter((r) => r.kind !== 'good')))}`);
  console.log(`without a token at a fault       ${untouchedGood} of ${untouched.length} good (${percent(untouchedGood, untouched.length)})`);
  console.log(`streams continued elsewhere      ${resumed} to their end, ${cut} cut with an error`);
  console.log(`continued and byte-equal         ${percent(resumed - silent, resumed + cut)}`);
  console.log(`worst ten seconds                ${percent(worstWindow(results) * 1000, 1000)} good`);
  console.log(`longest gap within a stream      ${Math.max(...results.map((r) => r.gap))} ms`);
  console.log('\nbad requests per kind of fault (by the last fault before their end):');
  for (const [kind] of KINDS) {
    const mine = faults.filter((f) => f.kind === kind);
    const bad = results.filter((r) => r.kind !== 'good' && faults.findLast((f) => f.at <= r.ended)?.kind === kind).length;
    console.log(`  ${kind.padEnd(16)} ${String(mine.length).padStart(3)} faults, ${bad} bad`);
  }
  for (const r of results.filter((one) => one.kind !== 'good').slice(0, 10)) console.log(`  ${r.kind}: first token ${r.ttft} ms, longest gap ${r.gap} ms ${r.why}`);
  if (silent > 0) process.exitCode = 1; // an answer that is wrong and looks right is never acceptable
} finally {
  await cluster.stop();
}
