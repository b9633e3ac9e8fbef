// The catalogue: single kinds of fault, many times each, on real processes with the fake engine and open-loop load.
//
//   node bench/faults/catalogue.mjs [--part nodes|controller|away|stalls|own-stalls|flapping|scale] [--nodes 5] [--kills 20]
//        [--stops 50] [--controller-away 600] [--agents 200] [--deployments 1000]
//
//   nodes       a node dies or is cut off: when its routes are gone, when the wanted replicas are there again, what is lost
//   controller  kill -9 of the controller under load and writes: failed requests, lost acknowledged changes
//   away        the controller is dead for --controller-away seconds (ten minutes unless said otherwise), and an engine dies
//               meanwhile
//   stalls      an agent that stands still for a second: false alarms
//   own-stalls  the controller stands still for 5 s, the gateway for 2 s: what they did not hear is nobody's silence
//   flapping    a node that is lost three times in five minutes: nothing new goes there until it has been calm
//   scale       many simulated agents and deployments on one real server: start to serving, CPU, memory, heartbeats
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isAlive, killHard, processesOf, commandOf, residentBytes, stopProcess } from '../../tests/e2e/lib/processes.mjs';
import { Site } from '../../tests/e2e/lib/site.mjs';
import { sleep, waitFor } from '../../tests/e2e/lib/wait.mjs';
import { Agents, makeIdentities } from './agents.mjs';
import { PROMPTS, ask, generator, judge, load, percent, quantile } from './client.mjs';
import { MODEL, Ours } from './ours.mjs';

const text = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : process.argv[at + 1];
};
const number = (name, fallback) => Number(text(name, fallback));
const part = text('part', 'all');
const RATE = number('rate', 4);
const TTFT_LIMIT_MS = 1000;
const row = (what, value) => console.log(`  ${what.padEnd(52)} ${value}`);
const summary = (values) => `p50 ${Math.round(quantile(values, 0.5))} ms, max ${Math.round(Math.max(...values))} ms (n = ${values.length})`;

// Runs `body` under load; returns what came of the requests.
async function underLoad(ours, body) {
  const expected = new Map();
  for (const prompt of PROMPTS) expected.set(prompt, (await ask(ours.target, prompt)).text);
  let going = true;
  const requests = load(ours.target, { rate: RATE, random: generator(7), running: () => going });
  try {
    await body();
    await sleep(1000);
  } finally {
    going = false;
  }
  return judge(await requests, expected, TTFT_LIMIT_MS);
}

function tellRequests(results) {
  const bad = results.filter((r) => r.kind !== 'good');
  row('requests, good', `${results.length}, ${percent(results.length - bad.length, results.length)}`);
  row('failed before a token / in mid-stream / wrong text', ['refused', 'broken', 'silent'].map((kind) => bad.filter((r) => r.kind === kind).length).join(' / '));
  row("the client's own delay at sending, p99 / max", `${[0.99, 1].map((q) => Math.round(quantile(results.map((r) => r.sent - r.due), q))).join(' / ')} ms`);
  row('late (first token after 1 s) or with a gap of 10 s', bad.filter((r) => ['late', 'gap'].includes(r.kind)).length);
  for (const r of bad.slice(0, 5)) console.log(`    ${r.kind} first token ${r.ttft} ms, gap ${r.gap} ms ${r.why}`);
}

function routedNodes(ours) {
  const table = JSON.parse(fs.readFileSync(path.join(ours.site.data, 'gateway', 'routes.json'), 'utf8'));
  const models = (table.table ?? table).models;
  return models.flatMap((model) => model.replicas.map((replica) => replica.node));
}

// The victim's routes are gone, and as many replicas as wanted are ready elsewhere.
async function heal(ours, victim, since) {
  const gone = waitFor('its routes are gone', () => !routedNodes(ours).includes(victim), { timeoutMs: 10_000, everyMs: 5 }).then(() => Date.now() - since);
  const restored = waitFor('the replicas are there again', async () => {
    const ready = (await ours.replicas()).filter((r) => r.state === 'ready' && r.node !== victim);
    return ready.length >= ours.replicaCount;
  }, { timeoutMs: 60_000, everyMs: 50 }).then(() => Date.now() - since);
  return Promise.all([gone, restored]);
}

async function nodes() {
  const times = number('nodes', 5);
  const ours = await Ours.start({ nodes: 4, replicas: 3, slots: 8 });
  const took = { kill: [], cut: [] };
  try {
    const results = await underLoad(ours, async () => {
      for (const way of ['kill', 'cut']) {
        for (let i = 0; i < times; ++i) {
          await ours.whole();
          await sleep(1000);
          const { node } = await ours.busiest();
          const since = Date.now();
          if (way === 'kill') await ours.killNode(node);
          else await ours.wires.get(node).cut();
          took[way].push(await heal(ours, node, since));
          if (way === 'kill') ours.startAgent(node);
          else await ours.wires.get(node).heal();
        }
      }
      await ours.whole();
    });
    console.log(`\nA node dies (agent, shims and engines killed together) or is cut off (bytes vanish), ${times} times each:`);
    for (const way of ['kill', 'cut']) {
      row(`${way}: its routes are gone`, summary(took[way].map(([gone]) => gone)));
      row(`${way}: wanted replicas ready again`, summary(took[way].map(([, restored]) => restored)));
    }
    tellRequests(results);
  } finally {
    await ours.stop();
  }
}

async function controller() {
  const kills = number('kills', 20);
  const ours = await Ours.start({ nodes: 3, replicas: 3, slots: 8 });
  const back = [];
  const acknowledged = [];
  let refused = 0;
  try {
    let writing = true;
    const writer = (async () => {
      for (let i = 0; writing; ++i) {
        try {
          const made = await ours.site.api('keys', { method: 'POST', body: { name: `key-${i}`, role: 'user' } });
          acknowledged.push(made.id);
        } catch {
          refused += 1; // not acknowledged: it may be there or not
        }
        await sleep(20);
      }
    })();
    const results = await underLoad(ours, async () => {
      const random = generator(3);
      for (let i = 0; i < kills; ++i) {
        await sleep(500 + 1000 * random());
        const since = Date.now();
        await killHard(ours.controllerPid());
        await waitFor('the API is back', () => ours.site.api('nodes'), { timeoutMs: 20_000, everyMs: 10 });
        back.push(Date.now() - since);
      }
      writing = false;
      await writer;
    });
    const known = new Set((await ours.site.api('keys')).items.map((key) => key.id));
    console.log(`\nThe controller is killed ${kills} times under load and writes:`);
    row('its API is back', summary(back));
    row('changes acknowledged, of these lost', `${acknowledged.length}, ${acknowledged.filter((id) => !known.has(id)).length} (${refused} were refused)`);
    tellRequests(results);
  } finally {
    await ours.stop();
  }
}

async function stalls() {
  const stops = number('stops', 50);
  const ours = await Ours.start({ nodes: 3, replicas: 3, slots: 8 });
  try {
    const count = async (kind) => (await ours.site.api('events?limit=1000')).items.filter((event) => event.kind === kind).length;
    const before = await count('node.lost');
    const results = await underLoad(ours, async () => {
      const random = generator(5);
      for (let i = 0; i < stops; ++i) {
        const node = ours.nodes[Math.floor(random() * ours.nodes.length)];
        const { pid } = ours.site.nodes.get(node).child;
        await stopProcess(pid);
        await sleep(1000);
        if (isAlive(pid)) process.kill(pid, 'SIGCONT');
        await sleep(500);
      }
    });
    console.log(`\nAn agent stands still for a second, ${stops} times:`);
    row('nodes declared lost', (await count('node.lost')) - before);
    tellRequests(results);
  } finally {
    await ours.stop();
  }
}

// Dead for so long that nothing it should have done can wait for it: its parent stands still, so nobody starts it again.
async function away() {
  const seconds = number('controller-away', 600);
  const ours = await Ours.start({ nodes: 3, replicas: 3, slots: 8 });
  try {
    const parent = ours.site.server.child.pid;
    const results = await underLoad(ours, async () => {
      const key = await ours.site.api('keys', { method: 'POST', body: { name: 'before', role: 'user' } });
      await stopProcess(parent);
      try {
        const controller = ours.controllerPid();
        const { pid } = await ours.busiest();
        await killHard(controller);
        const refused = await ours.site.api('nodes').then(() => null, (error) => error.status);
        if (refused !== 503) throw new Error(`without a controller its API answered ${refused}`);
        await sleep((seconds / 2) * 1000);
        await killHard(pid);
        await sleep((seconds / 2) * 1000);
        if (processesOf(ours.site.data).some((each) => commandOf(each.pid)[1] === 'controller-process' && isAlive(each.pid))) throw new Error('the controller was back too early');
      } finally {
        process.kill(parent, 'SIGCONT');
      }
      const since = Date.now();
      await waitFor('the API is back', () => ours.site.api('nodes'), { timeoutMs: 60_000, everyMs: 10 });
      const back = Date.now() - since;
      await ours.whole();
      if (!(await ours.site.api('keys')).items.some((each) => each.id === key.id)) throw new Error('a change was lost');
      console.log(`\nThe controller is dead for ${seconds} s; in the middle of it an engine is killed:`);
      row('its API is back after its parent goes on', `${back} ms`);
    });
    tellRequests(results);
  } finally {
    if (!ours.site.server.status) process.kill(ours.site.server.child.pid, 'SIGCONT');
    await ours.stop();
  }
}

const eventsOf = async (ours, kind) => (await ours.site.api('events?limit=1000')).items.filter((event) => event.kind === kind);

async function ownStalls() {
  const stops = number('own-stops', 10);
  const ours = await Ours.start({ nodes: 3, replicas: 3, slots: 8 });
  try {
    const standStill = async (pid, ms) => {
      await stopProcess(pid);
      await sleep(ms);
      if (isAlive(pid)) process.kill(pid, 'SIGCONT');
      await sleep(3000); // longer than it takes to declare a node lost
    };
    const results = await underLoad(ours, async () => {
      for (let i = 0; i < stops; ++i) await standStill(ours.controllerPid(), 5000);
    });
    const lost = (await eventsOf(ours, 'node.lost')).length;
    for (let i = 0; i < stops; ++i) await standStill(childOf(ours.site, 'gateway-process'), 2000);
    console.log(`\nThe controller stands still for 5 s, ${stops} times; then the gateway for 2 s, ${stops} times:`);
    row('nodes declared lost by the controller that stood still', lost);
    row('nodes declared lost when the gateway stood still', (await eventsOf(ours, 'node.lost')).length - lost);
    console.log('  requests while the controller stood still:');
    tellRequests(results);
  } finally {
    await ours.stop();
  }
}

async function flapping() {
  const ours = await Ours.start({ nodes: 3, replicas: 2, slots: 8 });
  try {
    const { node: victim } = await ours.busiest();
    const state = async () => (await ours.nodeStates()).find((node) => node.id === victim).state;
    const results = await underLoad(ours, async () => {
      for (let i = 0; i < 3; ++i) {
        const { pid } = ours.site.nodes.get(victim).child;
        await stopProcess(pid);
        await waitFor('it is lost', async () => (await state()) === 'lost', { timeoutMs: 20_000, everyMs: 50 });
        process.kill(pid, 'SIGCONT');
        await waitFor('it is heard again', async () => ['ready', 'quarantined'].includes(await state()), { timeoutMs: 20_000, everyMs: 50 });
      }
      const since = Date.now();
      await waitFor('it is quarantined', async () => (await state()) === 'quarantined', { timeoutMs: 20_000, everyMs: 50 });
      const up = await ours.site.cli('up', MODEL, '--name', 'everywhere', '--replicas', '3', '--pending', '--no-wait');
      if (up.code !== 0) throw new Error(up.stderr);
      await sleep(10_000);
      const there = (await ours.site.api('replicas')).items.filter((replica) => replica.deployment === 'everywhere').map((replica) => replica.node);
      const still = await state();
      await waitFor('it is released', async () => (await state()) === 'ready', { timeoutMs: 180_000, everyMs: 200 });
      const released = Date.now() - since;
      await waitFor('the third replica is placed there', async () => (await ours.site.api('replicas')).items.some((replica) => replica.deployment === 'everywhere' && replica.node === victim), { timeoutMs: 60_000, everyMs: 200 });
      console.log('\nAn agent stands still until its node is lost, three times:');
      row('new replicas on it while it was quarantined, elsewhere', `${there.filter((node) => node === victim).length}, ${there.filter((node) => node !== victim).length} (10 s later it was ${still})`);
      row('released, and used again, after', `${(released / 1000).toFixed(0)} s`);
    });
    tellRequests(results);
  } finally {
    await ours.stop();
  }
}

const childOf = (site, verb) => processesOf(site.data).find(({ pid }) => commandOf(pid)[1] === verb)?.pid;
const cpuMs = (pid) => {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10; // CLK_TCK is 100
};

// From the start of `aiv server` after a kill -9 of all its processes: until its port answers from the persisted routes,
// until a chat has its whole answer from a node, until /aiv/v1 answers, and until it lists what it has.
async function restarts(site, { count, deployments, model }) {
  const took = { routes: [], chat: [], api: [], list: [] };
  const headers = { authorization: `Bearer ${site.key}`, 'content-type': 'application/json' };
  const body = JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: 'Is it you?' }] });
  const tries = {
    routes: async () => (await fetch(`${site.url}/v1/models`, { headers })).ok,
    chat: async () => /\[DONE\]/.test(await (await fetch(`${site.url}/v1/chat/completions`, { method: 'POST', headers, body })).text()),
    api: async () => (await fetch(`${site.url}/aiv/v1/status`, { headers })).ok,
    list: async () => (await site.api('deployments')).items.length === deployments,
  };
  for (let i = 0; i < number('restarts', 5); ++i) {
    const { server } = site;
    const parts = [server.child.pid, childOf(site, 'gateway-process'), childOf(site, 'controller-process')];
    for (const pid of parts) process.kill(pid, 'SIGKILL');
    await server.exited;
    await waitFor('its processes are gone', () => parts.every((pid) => !isAlive(pid)), { everyMs: 2 });
    const since = performance.now();
    const started = site.startServer();
    await Promise.all(Object.entries(tries).map(async ([name, attempt]) => {
      await waitFor(name, attempt, { timeoutMs: 60_000, everyMs: 10 });
      took[name].push(performance.now() - since);
    }));
    await started;
    await waitFor('all nodes are back', async () => (await site.api('nodes')).items.filter((n) => n.state === 'ready').length === count, { timeoutMs: 60_000, everyMs: 200 });
    await sleep(2000);
  }
  row('server killed and started: its port answers (routes)', summary(took.routes));
  row('  a chat has its whole answer from a node', summary(took.chat));
  row('  /aiv/v1 answers', summary(took.api));
  row('  /aiv/v1 lists all deployments', summary(took.list));
}

async function scale() {
  const count = number('agents', 200);
  const deployments = number('deployments', 1000);
  const site = await Site.start();
  let agents = null;
  try {
    const linkPort = Number(site.link.split(':')[1]);
    // Before there is a node: each change of a deployment plans the whole cluster anew, and that is not what is measured here.
    const posted = Date.now();
    for (let i = 0; i < deployments; ++i) {
      await site.api('deployments', { method: 'POST', body: { name: `d${i}`, model: `fake:fake-small?weights=${64 + (i % 8) * 32}MiB`, replicas: 1, ctx: 1024, slots: 1, pending: true } });
    }
    const postMs = Date.now() - posted;
    const identities = makeIdentities({ dataDir: site.data, folder: path.join(site.dir, 'agents'), count });
    const joined = Date.now();
    agents = await Agents.start({ identities, linkPort });
    await waitFor('all agents are ready', async () => (await site.api('nodes')).items.filter((n) => n.state === 'ready').length === count, { timeoutMs: 120_000, everyMs: 500 });
    const nodesMs = Date.now() - joined;
    let ready = 0;
    await waitFor('all deployments are ready', async () => (ready = (await site.api('deployments')).items.filter((d) => d.state === 'ready').length) === deployments, { timeoutMs: 180_000, everyMs: 1000 }).catch(() => {});
    const placedMs = Date.now() - joined;

    const pids = { gateway: childOf(site, 'gateway-process'), controller: childOf(site, 'controller-process') };
    await agents.gaps();
    const before = Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, cpuMs(pid)]));
    const MEASURE_MS = 20_000;
    await sleep(MEASURE_MS);
    const gaps = await agents.gaps();
    console.log(`\n${count} simulated agents with ${deployments} deployments on one server:`);
    row('deployments posted (no node yet)', `${(postMs / 1000).toFixed(1)} s`);
    row('all agents connected at once, all ready after', `${(nodesMs / 1000).toFixed(1)} s`);
    row(ready === deployments ? 'all deployments placed and ready after' : `only ${ready} deployments ready after`, `${(placedMs / 1000).toFixed(1)} s`);
    for (const [name, pid] of Object.entries(pids)) {
      row(`${name}: CPU at rest, memory`, `${(((cpuMs(pid) - before[name]) / MEASURE_MS) * 100).toFixed(1)} % of a core, ${(residentBytes(pid) / 2 ** 20).toFixed(0)} MiB`);
    }
    row('heartbeat gap as sent, p50 / p99 / max', `${[0.5, 0.99, 1].map((q) => quantile(gaps, q).toFixed(0)).join(' / ')} ms (${gaps.length} of them)`);
    const lost = (await site.api('events?limit=1000')).items.filter((event) => event.kind === 'node.lost').length;
    row('nodes declared lost meanwhile', lost);

    await restarts(site, { count, deployments, model: (await site.api('deployments')).items.find((d) => d.state === 'ready').name });
  } finally {
    await agents?.stop();
    await site.stop();
  }
}

console.log(`catalogue: ${new Date().toISOString()}, ${os.cpus().length} cores, load ${os.loadavg().map((x) => x.toFixed(1)).join(' ')} before the run; ${RATE} requests/s, fake engine, real processes`);
const parts = { nodes, controller, away, stalls, 'own-stalls': ownStalls, flapping, scale };
for (const [name, run] of Object.entries(parts)) if (part === 'all' || part === name) await run();
