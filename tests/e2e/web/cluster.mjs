// The cluster the page is looked at with: the one at AIV_BASE_URL (key in AIV_KEY), or else an `aiv dev` with the
// fake engine, started here from the build folder AIV_BUILD_DIR on a port of its own and ended afterwards.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const build = process.env.AIV_BUILD_DIR ?? '';
const given = (process.env.AIV_BASE_URL ?? '').replace(/\/$/, '');

/** Why nothing can be looked at; false when something can. */
export const skip = given === '' && build === '' && 'neither AIV_BASE_URL (a running server) nor AIV_BUILD_DIR (a build to start one from) is set';

/** { base, key, stop } of a living cluster. */
export async function startCluster() {
  if (given !== '') return { base: given, key: process.env.AIV_KEY ?? '', stop: async () => {} };
  const binary = join(build, 'bin', 'aiv');
  if (!existsSync(binary)) throw new Error(`${binary} is not built: cmake --build ${build}`);
  const data = mkdtempSync(join(tmpdir(), 'aiv-web-dev-'));
  const child = spawn(
    binary,
    ['dev', '--engine', 'fake', '--gpus', 'GTX 1080:8GiB,RX 580:8GiB;RTX 3060:12GiB', '--port', '0', '--data', data],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let log = '';
  child.stderr.on('data', (bytes) => (log = (log + bytes).slice(-8000)));
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(`exit ${code ?? signal}`)));
  const base = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`aiv dev was not ready after 60 s:\n${log}`)), 60_000);
    createInterface({ input: child.stdout }).on('line', (line) => {
      const address = line.match(/^ready (http:\S+)/)?.[1];
      if (address === undefined) return;
      clearTimeout(timer);
      resolve(address);
    });
    void ended.then((how) => {
      clearTimeout(timer);
      reject(new Error(`aiv dev ended before it was ready (${how}):\n${log}`));
    });
  }).catch((error) => {
    child.kill('SIGTERM');
    throw error;
  });
  return {
    base,
    key: readFileSync(join(data, 'admin.key'), 'utf8').trim(),
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
      rmSync(data, { recursive: true, force: true });
    },
  };
}
