// The planner against CBC and HiGHS on random labs. A solver that is not there is left out, and that is said.
//   node labs.mjs PLACEMENT_BENCH [COUNT] [SECONDS_PER_SOLVER] [FIRST_SEED] [NODES]
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [bench, count = '100', seconds = '20', first = '1', nodes = '0'] = process.argv.slice(2);
const limit = Number(seconds);
const dir = mkdtempSync(join(tmpdir(), 'aiv-labs-'));

let highsLoader = null;
try {
  highsLoader = (await import('highs')).default;
} catch {
  console.log('HiGHS is not installed (npm ci in bench/placement): left out');
}
const haveCbc = spawnSync('cbc', ['-stop']).error === undefined;
if (!haveCbc) console.log('cbc is not installed (Debian: coinor-cbc): left out');

async function highs(lp) {
  let log = '';
  const solver = await highsLoader({ print: (line) => (log += line + '\n'), printErr: () => {} });
  const result = solver.solve(lp, { time_limit: limit, mip_rel_gap: 1e-7, mip_abs_gap: 1e-5, output_flag: true, log_to_console: true });
  const lines = Object.values(result.Columns).map((c) => `${c.Name} ${c.Primal ?? 0}`);
  const dual = /Dual bound\s+([-+.\de]+)/.exec(log);
  return { proven: result.Status === 'Optimal', bound: dual ? Number(dual[1]) : Infinity, lines };
}

function cbc(path) {
  const out = path + '.cbc';
  const run = spawnSync('cbc', [path, 'sec', String(limit), 'ratio', '1e-7', 'allow', '1e-5', 'solve', 'solution', out], { encoding: 'utf8' });
  const text = readFileSync(out, 'utf8').split('\n');
  const proven = text[0].startsWith('Optimal');
  const bound = /Upper bound:\s+([-+.\de]+)/.exec(run.stdout) ?? /best possible\s+([-+.\de]+)/.exec(run.stdout);
  const lines = text.slice(1).map((l) => l.trim().split(/\s+/)).filter((f) => f.length >= 3).map((f) => `${f[1]} ${f[2]}`);
  return { proven, bound: bound ? Math.abs(Number(bound[1])) : Infinity, lines };
}

function decode(seed, lines) {
  const run = spawnSync(bench, ['decode', String(seed), nodes], { input: lines.join('\n') + '\n', encoding: 'utf8' });
  if (run.stderr) process.stderr.write(run.stderr);
  return JSON.parse(run.stdout);
}

const rows = [];
for (let seed = Number(first); seed < Number(first) + Number(count); ++seed) {
  const run = spawnSync(bench, ['lab', String(seed), dir, nodes], { encoding: 'utf8' });
  if (run.status !== 0) process.stderr.write(run.stderr);
  const row = JSON.parse(run.stdout);
  const path = join(dir, `${seed}.lp`);
  const solvers = {};
  if (highsLoader) {
    try {
      solvers.highs = await highs(readFileSync(path, 'utf8'));
    } catch (error) {
      console.error(`seed ${seed}: HiGHS failed: ${error.message ?? error}`);
    }
  }
  if (haveCbc) solvers.cbc = cbc(path);
  row.best = 0;
  row.proven = 0;
  for (const [name, s] of Object.entries(solvers)) {
    const d = decode(seed, s.lines);
    row[name] = d.value;
    row[name + '_proven'] = s.proven;
    row[name + '_bound'] = s.bound;
    if (d.faults === 0) row.best = Math.max(row.best, d.value);
    if (s.proven) row.proven += 1;
  }
  row.disagree = row.highs_proven && row.cbc_proven && Math.abs(row.highs - row.cbc) > 1e-5 * Math.max(1, row.cbc);
  // A proven optimum below a plan that the checker accepts would be a solver's or the model's fault.
  row.solver_wrong = row.proven > 0 && row.ms1000 > row.best * (1 + 1e-6) + 1e-4;
  rows.push(row);
  console.error(JSON.stringify(row));
}
rmSync(dir, { recursive: true });

const proven = rows.filter((r) => r.proven > 0);
const gap = (r, key) => (100 * (r.best - r[key])) / r.best;
const stats = (list, key) => {
  const gaps = list.map((r) => gap(r, key)).sort((a, b) => a - b);
  const mean = gaps.reduce((a, b) => a + b, 0) / Math.max(1, gaps.length);
  return `mean ${mean.toFixed(3)} %  p95 ${(gaps[Math.floor(gaps.length * 0.95)] ?? 0).toFixed(3)} %  max ${(gaps.at(-1) ?? 0).toFixed(3)} %`;
};
console.log(`labs: ${rows.length} of 3-8 nodes, loads 0.8, 1.3, 2.0; proven by both ${rows.filter((r) => r.proven === 2).length}, by one ${rows.filter((r) => r.proven === 1).length}, by none ${rows.filter((r) => r.proven === 0).length} in ${limit} s each`);
console.log(`solvers disagree: ${rows.filter((r) => r.disagree).length}; plans above a "proven" optimum: ${rows.filter((r) => r.solver_wrong).length}; faults found by the checker in our plans: ${rows.reduce((a, r) => a + r.faults, 0)}`);
console.log(`gap to the proven optimum (${proven.length} labs):`);
console.log(`  first plan      ${stats(proven, 'first')}`);
console.log(`  limit 50 ms     ${stats(proven, 'ms50')}`);
console.log(`  limit 1000 ms   ${stats(proven, 'ms1000')}`);
const open = rows.filter((r) => r.proven === 0 && r.best > 0);
if (open.length > 0) console.log(`against the solvers' best on the ${open.length} open labs (negative: ours is better): ${stats(open, 'ms1000')}`);
const elapsed = rows.map((r) => r.ms1000_elapsed).sort((a, b) => a - b);
console.log(`processor time taken with the limit of 1000 ms: median ${elapsed[elapsed.length >> 1]} ms, most ${elapsed.at(-1)} ms`);
