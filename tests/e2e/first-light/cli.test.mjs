// The command line against a living cluster: exit codes, --json, words.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { it } from 'node:test';
import { Cluster, runCli } from '../lib/cluster.mjs';
import { withCluster } from '../lib/suite.mjs';
import { waitFor } from '../lib/wait.mjs';

const json = (result) => {
  assert.equal(result.code, 0, result.stderr);
  return JSON.parse(result.stdout);
};

// One line that says what happened; never a stack, an assertion or a C++ type.
function readable(result) {
  assert.equal(result.stdout, '', 'nothing on stdout');
  assert.match(result.stderr, /^aiv: /m, result.stderr);
  assert.ok(!/terminate called|std::|0x[0-9a-f]{8}|Sanitizer/.test(result.stderr), result.stderr);
}

it('a port where nobody listens: exit 6, soon, with the address', async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  const started = Date.now();
  const result = await runCli(['ps'], { env: { ...process.env, AIV_SERVER: `http://127.0.0.1:${port}`, AIV_KEY: 'x' } });
  assert.equal(result.code, 6, result.stderr);
  assert.ok(Date.now() - started < 8000);
  assert.match(result.stderr, new RegExp(`127\\.0\\.0\\.1:${port}`));
});

it('unknown verbs and flags: exit 2 with the nearest', async () => {
  for (const [args, nearest] of [[['pss'], /ps/], [['dvv'], /dev/], [['ps', '--jsn'], /--json/], [['dev', '--gpu', 'x'], /--gpus/]]) {
    const result = await runCli(args);
    assert.equal(result.code, 2, `${args}: ${result.code} ${result.stderr}`);
    assert.match(result.stderr, nearest);
  }
});

it('wrong --gpus: exit 2, naming the part', async () => {
  for (const gpus of ['GTX 1080', 'GTX 1080:8', 'GTX 1080:-8GiB', ':8GiB', 'A:8GiB;;B:8GiB', 'A:8GiB,', 'A:9999999TiB']) {
    const result = await runCli(['dev', '--gpus', gpus, '--port', '0']);
    assert.equal(result.code, 2, `${gpus}: ${result.code} ${result.stderr}`);
  }
});

it('a port in use: exit 1, naming it', async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  const dir = fs.mkdtempSync('/tmp/aiv-');
  try {
    const result = await runCli(['dev', '--engine', 'fake', '--gpus', 'A:8GiB', '--port', String(port), '--data', dir]);
    assert.equal(result.code, 1, result.stderr);
    assert.match(result.stderr, new RegExp(String(port)));
  } finally {
    server.close();
    fs.rmSync(dir, { recursive: true, force: true });
  }
});

withCluster('The command line', { gpus: 'GTX 1080:8GiB;RTX 3060:12GiB', args: ['--no-models'] }, (test) => {
  test('aiv up waits until the model is ready; ps, ls and chat know it; down takes it away', async (cluster) => {
    const up = await cluster.cli('up', 'fake-small', '--name', 'tiny', '--replicas', '2');
    assert.equal(up.code, 0, up.stderr);
    const replicas = (await cluster.replicas('tiny')).filter((r) => r.state === 'ready');
    assert.equal(replicas.length, 2);
    const ps = json(await cluster.cli('ps', '--json'));
    assert.deepEqual(ps.items.map((r) => r.id).sort(), replicas.map((r) => r.id).sort());
    const table = await cluster.cli('ps');
    assert.equal(table.code, 0);
    assert.match(table.stdout, /100% GPU/);
    for (const replica of replicas) assert.ok(table.stdout.includes(replica.id) || table.stdout.includes('tiny'), table.stdout);
    assert.ok(!table.stdout.includes('\u001b'), 'no colour in a pipe');
    json(await cluster.cli('ls', '--json'));
    const chat = await cluster.cli('chat', 'tiny', '#fake say=hello from the fake engine');
    assert.equal(chat.code, 0, chat.stderr);
    assert.match(chat.stdout, /hello from the fake engine/);
    assert.equal((await cluster.cli('down', 'tiny')).code, 0);
    await waitFor('no replica is left', async () => (await cluster.replicas()).length === 0, { timeoutMs: 20_000 });
    assert.equal((await cluster.cli('down', 'tiny')).code, 3);
  });

  test('a model that fits nowhere: exit 4, with what it needs and what there is', async (cluster) => {
    const result = await cluster.cli('up', 'fake:huge?weights=100GiB', '--name', 'huge');
    assert.equal(result.code, 4, result.stderr);
    readable(result);
    assert.match(result.stderr, /\d+(\.\d+)? GiB.*\d+(\.\d+)? GiB/s);
    assert.deepEqual((await cluster.items('deployments')).filter((d) => d.name === 'huge'), []);
  });

  test('a model that is not there: exit 3; a setting that is not there: named', async (cluster) => {
    const missing = await cluster.cli('up', '/no/such/model.gguf');
    assert.ok([1, 3].includes(missing.code), `${missing.code} ${missing.stderr}`);
    readable(missing);
    assert.match(missing.stderr, /\/no\/such\/model\.gguf/);
    const setting = await cluster.cli('up', 'fake:m?colour=red');
    assert.notEqual(setting.code, 0);
    assert.match(setting.stderr, /colour/);
  });

  test('a wrong key: exit 5', async (cluster) => {
    const result = await cluster.cli('ps', { key: 'aiv-nonsense' });
    assert.equal(result.code, 5, result.stderr);
    readable(result);
  });

  test('keys: made once, used, listed without their secret', async (cluster) => {
    const made = json(await cluster.cli('key', 'create', 'student', '--json'));
    assert.match(made.key, /^aiv-[0-9A-Za-z]{10}-[0-9A-Za-z]{43}-[0-9A-Za-z]{6}$/);
    assert.equal((await waitFor('the key is known', async () => { const r = await cluster.fetch('/v1/models', { key: made.key }); return r.status === 200 ? r : null; })).status, 200);
    const listed = await cluster.cli('key', 'ls', '--json');
    assert.ok(json(listed).items.some((k) => k.name === 'student'));
    assert.ok(!listed.stdout.includes(made.key.split('-')[2]));
    assert.equal((await cluster.cli('ps', { key: made.key })).code, 5, 'a user may not look at the cluster');
    assert.equal((await cluster.fetch('/aiv/v1/deployments', { method: 'POST', key: made.key, body: { model: 'fake-small', name: 'x' } })).status, 403);
  });

  test('aiv dev kill and start: 3 for a name that is not there', async (cluster) => {
    for (const verb of ['kill', 'stop', 'cont', 'start']) {
      assert.equal((await cluster.cli('dev', verb, 'n99', '--data', cluster.dir)).code, 3, verb);
    }
    assert.equal((await cluster.cli('dev', 'kill', 'engine:none', '--data', cluster.dir)).code, 3);
  });

  test('our own API refuses a field it does not know, by name', async (cluster) => {
    const response = await cluster.fetch('/aiv/v1/deployments', { method: 'POST', body: { model: 'fake-small', name: 'x', replcas: 2 } });
    assert.equal(response.status, 400);
    assert.match(JSON.stringify(await response.json()), /replcas/);
  });

  test('lists have items and a revision; version and health say who they are', async (cluster) => {
    for (const resource of ['nodes', 'devices', 'models', 'deployments', 'replicas', 'keys', 'events']) {
      const list = await cluster.api(resource);
      assert.ok(Array.isArray(list.items), resource);
      assert.equal(typeof list.revision, 'number', resource);
    }
    const version = json(await cluster.cli('version', '--json'));
    assert.ok(version.version);
    assert.equal((await cluster.fetch('/aiv/v1/version', { key: '' })).status, 200);
  });
});

it('--no-auth lets everybody in on loopback; the admin key is not world-readable otherwise', async () => {
  const cluster = await Cluster.start({ gpus: 'A:8GiB', args: ['--no-auth'] });
  try {
    assert.equal((await cluster.fetch('/v1/models', { key: '' })).status, 200);
    assert.equal((await cluster.fetch('/aiv/v1/nodes', { key: '' })).status, 200);
    const key = path.join(cluster.dir, 'admin.key');
    if (fs.existsSync(key)) assert.equal(fs.statSync(key).mode & 0o077, 0);
    assert.equal(fs.statSync(cluster.dir).mode & 0o077, 0);
  } finally {
    await cluster.stop();
  }
});
