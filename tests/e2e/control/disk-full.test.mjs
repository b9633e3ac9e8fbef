// A full disk: the state takes no changes and says why, everything else goes on, and it heals by itself.
// On a small tmpfs in a mount namespace of its own, which ends with the process; without the right to make one it is skipped.
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Site } from '../lib/site.mjs';
import { waitFor } from '../lib/wait.mjs';

const NAMESPACE = ['--mount', '--propagation', 'private'];
const DISK_MIB = 48;

async function chat(site) {
  const response = await fetch(`${site.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${site.key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'fake-small', messages: [{ role: 'user', content: '#fake tokens=3\nhi' }] }),
  });
  assert.equal(response.status, 200, await response.text());
}

function fill(file) {
  const out = fs.openSync(file, 'w');
  try {
    for (let size = 1 << 20; size >= 1; ) {
      try {
        fs.writeSync(out, Buffer.alloc(size));
      } catch (error) {
        if (error.code !== 'ENOSPC') throw error;
        size >>= 1;
      }
    }
  } finally {
    fs.closeSync(out);
  }
}

async function inside() {
  const disk = fs.mkdtempSync(path.join(os.tmpdir(), 'aivd-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'tmpfs', disk]);
  process.env.TMPDIR = disk;
  const site = await Site.start();
  const acknowledged = new Set();
  const write = async (name) => acknowledged.add((await site.api('keys', { method: 'POST', body: { name, role: 'user' } })).id);
  try {
    const line = await site.token();
    site.startNode('n1', { line });
    await site.waitForNode('n1');
    const up = await site.cli('up', 'fake-small', '--replicas', '1');
    assert.equal(up.code, 0, up.stderr);
    await write('before');

    const ballast = path.join(site.data, 'state.ballast');
    assert.ok(fs.existsSync(ballast), 'there is a ballast to throw off');
    const filler = path.join(disk, 'filler');
    fill(filler);
    let refusal = null;
    for (let i = 0; i < 500 && !refusal; ++i) await write(`full-${i}`).catch((error) => (refusal = error));
    assert.ok(refusal, 'a full disk refuses a change');
    assert.equal(refusal.status, 503);
    assert.match(refusal.body.error.message, /disk of .* is full: free at least 16 MiB/);
    assert.ok(!fs.existsSync(ballast), 'the ballast was thrown off');

    // Reading and serving go on.
    for (let i = 0; i < 20; ++i) await chat(site);
    const ids = async () => new Set((await site.api('keys')).items.map((key) => key.id));
    const known = await ids();
    for (const id of acknowledged) assert.ok(known.has(id), `${id} was acknowledged`);
    assert.equal((await site.api('deployments')).items.length, 1);
    const doctor = await site.cli('doctor');
    assert.match(doctor.stdout + doctor.stderr, /full/, 'aiv doctor says it');

    // Room again: the next change is taken, by itself.
    fs.rmSync(filler);
    await waitFor('changes are taken again', () => write('after').then(() => true), { timeoutMs: 20_000, everyMs: 200 });
    assert.ok((await ids()).has([...acknowledged].at(-1)));
    assert.ok(fs.existsSync(ballast), 'there is a ballast again');

    // Full again, and the server is stopped and started: it comes up and serves.
    // A start writes some kilobytes (sockets' ports, SQLite's files): a disk without a single byte ends it.
    fill(filler);
    fs.truncateSync(filler, fs.statSync(filler).size - (1 << 20));
    site.server.child.kill('SIGTERM');
    await site.server.exited;
    await site.startServer();
    await site.waitForNode('n1');
    await waitFor('it serves again', async () => (await chat(site), true), { timeoutMs: 20_000 });
    const kept = await ids();
    for (const id of acknowledged) assert.ok(kept.has(id), `${id} was acknowledged before the restart`);
  } catch (error) {
    site.printLogs();
    throw error;
  } finally {
    await site.stop();
    execFileSync('umount', ['-l', disk]);
    fs.rmdirSync(disk);
  }
}

if (process.env.AIV_DISK_NAMESPACE) {
  await inside();
} else {
  const possible = spawnSync('unshare', [...NAMESPACE, 'sh', '-c', 'd=$(mktemp -d) && mount -t tmpfs tmpfs "$d" && umount "$d" && rmdir "$d"']).status === 0;
  it('a full disk: changes are refused with the reason, all else goes on, and it heals', { skip: possible ? false : 'needs the right to mount a tmpfs (root)', timeout: 180_000 }, async () => {
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const child = spawn('unshare', [...NAMESPACE, process.execPath, fileURLToPath(import.meta.url)], { env: { ...env, AIV_DISK_NAMESPACE: '1' }, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => (output += bytes));
    const code = await new Promise((resolve) => child.once('exit', resolve));
    assert.equal(code, 0, output.slice(-20_000));
  });
}
