// The fault run: an open-loop client outside the gateway while parts of the cluster are killed, stopped and cut off by a
// seeded schedule; what came of each request, judged by the text it should have had. Beside it, on the same schedule, load
// and engines: HAProxy as in the paper. Fake engine, real processes: it measures availability, never speed.
//
//   node bench/faults/run.mjs [--seed 1] [--seeds 1] [--faults 60] [--rate 4] [--rival 1] [--verbose 0]
//
// With --seeds N that many runs follow each other, each with its seed, its schedule and clusters of its own, and are summed up:
// a share of good requests of 99.95 % is shown (Wilson, 95 %) by 7,700 requests without a bad one, which is four seeds of 60 faults.
//
// Four nodes, three replicas of eight slots (HAProxy: three engines of eight). At 4 requests/s of 1 s each, four run at once
// on average, so two replicas carry the load of three four times over: what is lost is lost to the faults, not to overload.
// First token within 1 s, or five times the undisturbed p99 where that is more. Faults do not overlap: the next one comes
// when all is whole again. A control run without faults comes first and must be all good, or the figures mean nothing.
import os from 'node:os';
import { sleep } from '../../tests/e2e/lib/wait.mjs';
import { GAP_MS, PROMPTS, ask, generator, judge, load, percent, quantile, wilson, worstWindow } from './client.mjs';
import { Haproxy } from './haproxy.mjs';
import { Ours } from './ours.mjs';

const KINDS = [
  ['engine kill', 0.3],
  ['engine stop', 0.15],
  ['agent kill', 0.15],
  ['node cut', 0.15],
  ['node kill', 0.15],
  ['controller kill', 0.1],
];
const OURS_ALONE = ['agent kill', 'controller kill'];
const CONTROL_MS = 20_000;

const option = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : Number(process.argv[at + 1]);
};
const firstSeed = option('seed', 1);
const seedCount = option('seeds', 1);
const faultCount = option('faults', 60);
const rate = option('rate', 4);
const withRival = option('rival', 1) !== 0;
const verbose = option('verbose', 0) !== 0;
const only = process.argv.includes('--only') ? process.argv[process.argv.indexOf('--only') + 1] : null;
const SIZES = { nodes: 4, replicas: 3, slots: 8 };

function scheduleOf(seed) {
  const random = generator(seed);
  return Array.from({ length: faultCount }, () => {
    let x = random();
    return only ?? (KINDS.find(([, share]) => (x -= share) < 0) ?? KINDS[0])[0];
  });
}

async function run(System, kinds, seed) {
  const system = await System.start(SIZES);
  const draw = generator(seed + 1);
  try {
    const { target } = system;
    const expected = new Map();
    for (const prompt of PROMPTS) expected.set(prompt, (await ask(target, prompt)).text);
    if ([...expected.values()].some((text) => text === '')) throw new Error('an undisturbed answer is empty');
    const controlEnd = Date.now() + CONTROL_MS;
    const control = await load(target, { rate, random: draw, running: () => Date.now() < controlEnd });
    const ttftLimit = Math.max(1000, Math.round(5 * quantile(control.map((r) => r.ttft ?? GAP_MS), 0.99)));
    judge(control, expected, ttftLimit);
    const controlGood = control.filter((r) => r.kind === 'good').length;
    console.log(`${System.name}: control ${percent(controlGood, control.length)} of ${control.length} good; a first token within ${ttftLimit} ms is in time`);

    let going = true;
    const requests = load(target, { rate, random: draw, running: () => going });
    const pauses = generator(seed + 2);
    const faults = [];
    for (const kind of kinds) {
      await system.whole();
      await sleep(1000 + 1000 * pauses());
      const at = await system.fault(kind);
      faults.push({ kind, at });
      if (verbose) console.log(`  ${new Date(at).toISOString()} ${kind}`);
    }
    await system.whole();
    await sleep(3000);
    going = false;
    const results = judge(await requests, expected, ttftLimit);
    return { name: System.name, results, faults, resumed: await system.resumed(), control: controlGood === control.length };
  } finally {
    await system.stop();
  }
}

const faultOf = (faults, r) => faults.findLast((f) => f.at <= r.ended);

function tell({ name, results, faults, resumed }) {
  const good = results.filter((r) => r.kind === 'good').length;
  const bad = results.filter((r) => r.kind !== 'good');
  const kinds = {};
  for (const { kind } of bad) kinds[kind] = (kinds[kind] ?? 0) + 1;
  // No token of it had arrived when a fault came, or none came while it ran.
  const untouched = results.filter((r) => !faults.some((f) => r.ttft !== null && f.at > r.due + r.ttft && f.at < r.ended));
  const untouchedGood = untouched.filter((r) => r.kind === 'good').length;
  const silent = kinds.silent ?? 0;
  console.log(`\n${name}: ${faults.length} faults`);
  console.log(`  requests                         ${results.length}`);
  console.log(`  good                             ${good} (${percent(good, results.length)}; Wilson 95 % from ${percent(wilson(good, results.length), 1)})`);
  console.log(`  not good, by kind                ${JSON.stringify(kinds)}`);
  console.log(`  without a token at a fault       ${untouchedGood} of ${untouched.length} good (${percent(untouchedGood, untouched.length)})`);
  if (resumed.toTheEnd + resumed.cut > 0) {
    console.log(`  streams continued elsewhere      ${resumed.toTheEnd} to their end, ${resumed.cut} cut with an error`);
    console.log(`  continued and byte-equal         ${percent(resumed.toTheEnd - silent, resumed.toTheEnd + resumed.cut)}`);
  }
  console.log(`  worst ten seconds                ${percent(worstWindow(results), 1)} good`);
  console.log(`  longest gap within a stream      ${Math.max(...results.map((r) => r.gap))} ms`);
  console.log(`  the client's own delay, p99 / max ${[0.99, 1].map((q) => Math.round(quantile(results.map((r) => r.sent - r.due), q))).join(' / ')} ms`);
  console.log(`  first token p50 / p99 / max      ${[0.5, 0.99, 1].map((q) => quantile(results.map((r) => r.ttft ?? GAP_MS), q)).map(Math.round).join(' / ')} ms`);
  for (const r of verbose ? bad : bad.slice(0, 10)) {
    const fault = faultOf(faults, r);
    console.log(`    ${r.kind} ${r.id} due ${new Date(r.due).toISOString()}, ${fault ? `${Math.round(r.due - fault.at)} ms after ${fault.kind}` : 'before any fault'}, first token ${r.ttft === null ? '-' : Math.round(r.ttft)} ms, gap ${r.gap} ms ${r.why}`);
  }
}

function table(runs, schedule) {
  console.log(`\nbad requests per kind of fault (by the last fault before their end)`);
  console.log(`  ${'fault'.padEnd(16)} ${'faults'.padStart(6)} ${runs.map(({ name }) => name.padStart(12)).join('')}`);
  for (const [kind] of KINDS) {
    const count = schedule.filter((k) => k === kind).length;
    const cells = runs.map(({ results, faults }) =>
      faults.some((f) => f.kind === kind) ? String(results.filter((r) => r.kind !== 'good' && faultOf(faults, r)?.kind === kind).length) : '-');
    console.log(`  ${kind.padEnd(16)} ${String(count).padStart(6)} ${cells.map((c) => c.padStart(12)).join('')}`);
  }
}

// What all seeds show together. Requests near one fault are not independent; whole runs are.
function sum(name, runs) {
  const results = runs.flatMap((each) => each.results);
  const good = results.filter((r) => r.kind === 'good').length;
  const resumed = runs.reduce((all, each) => ({ toTheEnd: all.toTheEnd + each.resumed.toTheEnd, cut: all.cut + each.resumed.cut }), { toTheEnd: 0, cut: 0 });
  console.log(`\n${name}, all ${runs.length} seeds: ${runs.reduce((all, each) => all + each.faults.length, 0)} faults`);
  console.log(`  requests                         ${results.length}`);
  console.log(`  good                             ${good} (${percent(good, results.length)}; Wilson 95 % from ${(100 * wilson(good, results.length)).toFixed(3)} %)`);
  console.log(`  not good, by seed                ${runs.map((each) => each.results.filter((r) => r.kind !== 'good').length).join(', ')}`);
  if (resumed.toTheEnd + resumed.cut > 0) console.log(`  streams continued elsewhere      ${resumed.toTheEnd} to their end, ${resumed.cut} cut with an error`);
}

const all = [];
for (let seed = firstSeed; seed < firstSeed + seedCount; ++seed) {
  const schedule = scheduleOf(seed);
  console.log(`seed ${seed}, ${faultCount} faults, ${rate} requests/s, ${SIZES.nodes} nodes, ${SIZES.replicas} replicas of ${SIZES.slots} slots (fake engine, real processes)`);
  console.log(`${new Date().toISOString()}, ${os.cpus().length} cores, load ${os.loadavg().map((x) => x.toFixed(1)).join(' ')} before the run`);
  console.log(`schedule: ${schedule.join(', ')}\n`);
  const runs = [await run(Ours, schedule, seed)];
  const shared = schedule.filter((kind) => !OURS_ALONE.includes(kind));
  if (withRival && Haproxy.available && shared.length > 0) runs.push(await run(Haproxy, shared, seed));
  for (const each of runs) tell(each);
  table(runs, schedule);
  if (runs.length === 2) {
    const badOf = ({ results, faults }) => results.filter((r) => r.kind !== 'good' && !OURS_ALONE.includes(faultOf(faults, r)?.kind)).length;
    console.log(`\nbad requests at the faults that both have: ${badOf(runs[0])} against ${badOf(runs[1])}`);
  } else if (withRival && !Haproxy.available) {
    console.log('\nHAProxy is not installed (Debian: apt-get install haproxy), so there is no rival beside it');
  }
  const silent = runs[0].results.filter((r) => r.kind === 'silent').length;
  if (!runs[0].control) console.log('\nthe control run was not all good: this machine was too busy for the figures to mean anything');
  if (silent > 0 || !runs[0].control) process.exitCode = 1; // an answer that is wrong and looks right is never acceptable
  all.push(runs);
}
if (seedCount > 1) {
  for (const [i, { name }] of all[0].entries()) sum(name, all.map((runs) => runs[i]).filter(Boolean));
}
