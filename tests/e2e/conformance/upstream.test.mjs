// llama.cpp's own tests of its server's API shape (compat_anthropic, basic, stream), taken from the engine's source as
// `make build` fetched it, run unchanged by Debian's pytest against the gateway, but for a list with a reason each.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import { engineDir, repository } from '../lib/places.mjs';
import { withCluster } from '../lib/suite.mjs';

const PYTHON = '/usr/bin/python3';
const here = path.join(repository, 'tests/e2e/conformance/upstream');
const FILES = ['test_compat_anthropic.py', 'test_basic.py', 'test_stream.py'];

function sourceDir() {
  const sources = process.env.AIV_ENGINE_SOURCE ?? path.join(repository, '.cache/engine-src');
  if (!fs.existsSync(sources)) return null;
  const found = [sources, ...fs.readdirSync(sources).map((version) => path.join(sources, version))]
    .map((root) => path.join(root, 'llama.cpp/tools/server/tests/unit'))
    .filter((unit) => FILES.every((file) => fs.existsSync(path.join(unit, file))));
  return found.at(-1) ?? null;
}

function run(args, options) {
  return new Promise((resolve) => {
    const child = spawn(PYTHON, args, options);
    let output = '';
    child.stdout.on('data', (bytes) => (output += bytes));
    child.stderr.on('data', (bytes) => (output += bytes));
    child.once('error', (error) => resolve({ code: -1, output: error.message }));
    child.once('close', (code) => resolve({ code, output }));
  });
}

const unit = sourceDir();
const pytest = await run(['-c', 'import pytest, requests'], {});
const missing = !engineDir
  ? 'no engine beside aiv'
  : !unit
    ? "the engine's source is not there (make build fetches it)"
    : pytest.code !== 0
      ? 'pytest is not installed (scripts/setup.sh test, or apt install python3-pytest python3-requests)'
      : null;

if (missing) {
  describe("llama.cpp's own server tests", () => it('pass', { skip: missing }, () => {}));
} else {
  withCluster("llama.cpp's own server tests", { engine: 'llama', gpus: 'A:256MiB' }, (test) => {
    test('pass against the gateway, but for those listed', { timeout: 800_000 }, async (cluster) => {
      const aliases = ['test', 'tinyllama-2-anthropic'];
      await cluster.api('deployments/demo', { method: 'PATCH', body: { aliases } });
      const exceptions = fs
        .readFileSync(path.join(here, 'exceptions.txt'), 'utf8')
        .split('\n')
        .filter((line) => line && !line.startsWith('#'))
        .map((line) => line.split(/\s+/)[0]);
      const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'aiv-upstream-'));
      for (const file of FILES) fs.copyFileSync(path.join(unit, file), path.join(directory, file));
      fs.copyFileSync(path.join(here, 'utils.py'), path.join(directory, 'utils.py'));
      const deselect = `not (${exceptions.join(' or ')})`;
      const result = await run(['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-k', deselect, ...FILES], {
        cwd: directory,
        env: { ...process.env, PYTHONPATH: directory, AIV_TEST_URL: cluster.url, AIV_TEST_KEY: cluster.key, AIV_TEST_MODEL: 'demo' },
      });
      fs.rmSync(directory, { recursive: true, force: true });
      assert.equal(result.code, 0, result.output);
      const passed = Number(/(\d+) passed/.exec(result.output)?.[1] ?? 0);
      assert.ok(passed >= 20, result.output);
      console.log(result.output.trim().split('\n').at(-1));
    });
  });
}
