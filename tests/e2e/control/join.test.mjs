// A machine becomes a node with one pasted line, stays one, and stops being one.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runCli } from '../lib/cluster.mjs';
import { Site } from '../lib/site.mjs';
import { waitFor, within } from '../lib/wait.mjs';

const count = (text, what) => text.split(what).length - 1;

describe('enrolment', { concurrency: false }, () => {
  let site;
  before(async () => {
    site = await Site.start();
  });
  after(async () => {
    await site?.stop();
  });
  const test = (title, body) =>
    it(title, { timeout: 120_000 }, async () => {
      try {
        await body();
      } catch (error) {
        site.printLogs();
        throw error;
      }
    });

  test('one line joins a machine; its key stays there, for its owner only', async () => {
    const line = await site.token('--labels', 'zone=a');
    assert.match(line, /^aiv node --join aivj1\.\w{6}\.\w{26}\.[\w-]{43} --server 127\.0\.0\.1:\d+\n$/);
    site.startNode('n1', { line });
    const node = await site.waitForNode('n1');
    assert.deepEqual(node.labels, { zone: 'a' });
    const key = path.join(site.nodeDir('n1'), 'tls/node.key');
    assert.equal(fs.statSync(key).mode & 0o077, 0);
    const secret = fs.readFileSync(key, 'utf8');
    const everything = fs.readdirSync(site.data, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    for (const entry of everything) {
      const text = fs.readFileSync(path.join(entry.parentPath ?? entry.path, entry.name), 'latin1');
      assert.ok(!text.includes(secret.split('\n')[1]), `${entry.name} holds the node's key`);
      assert.ok(!text.includes(line.split('.')[2]), `${entry.name} holds the token's secret`);
    }
  });

  test('started again, by the pasted line or without it, it is the same node and spends no use', async () => {
    await site.stopRun(site.nodes.get('n1'));
    const [token] = (await site.api('tokens')).items;
    site.startNode('n1', { id: '' });
    await site.waitForNode('n1');
    assert.equal((await site.api('tokens')).items[0].uses_left, token.uses_left);
    const other = await runCli(['node', '--data', site.nodeDir('nowhere')], { env: site.env });
    assert.equal(other.code, 2);
    assert.match(other.stderr, /has not joined.*\n.*aiv node ls/);
  });

  test('tokens that are cut, unknown, used up, expired or for another node let nobody in: exit 5, one sentence', async () => {
    const fresh = (line, id) => runCli(site.nodeArgs(`x-${id}`, { line, id }), { env: site.env, timeoutMs: 30_000 });
    const good = await site.token('--uses', '1');
    const cut = await fresh(good.replace(/(aivj1\.\S{20})\S*/, '$1'), 'a');
    assert.equal(cut.code, 5, cut.stderr);
    assert.match(cut.stderr, /copy it whole/);
    const wrong = await fresh(good.replace(/(aivj1\.\w{6}\.)\w{6}/, '$1AAAAAA'), 'b');
    const other = await fresh((await site.token('--node', 'pc9')).replace(/ --id \S+/, ''), 'c');
    const expiring = await site.token('--ttl', '1s');
    await waitFor('the token expires', async () => (await site.api('tokens')).items.some((t) => t.state === 'expired'));
    const expired = await fresh(expiring, 'd');
    for (const result of [wrong, other, expired]) {
      assert.equal(result.code, 5, result.stderr);
      assert.match(result.stderr, /^aiv: the join token is not valid: it is unknown, expired, used up, or for another node$/m);
    }
    assert.ok(!(await site.api('nodes')).items.some((node) => node.id.length === 1));
  });

  test('nothing is sent to a server whose authority is not the token\'s', async () => {
    const stranger = await Site.start();
    try {
      const line = (await site.token()).replace(/--server \S+/, `--server ${stranger.link}`);
      const result = await runCli(site.nodeArgs('x-pin', { line, id: 'pin' }), { env: site.env, timeoutMs: 30_000 });
      assert.equal(result.code, 5, result.stderr);
      assert.match(result.stderr, /not the one this token is for.*nothing was sent/);
      assert.equal((await stranger.api('events')).items.filter((event) => event.kind.startsWith('node.')).length, 0);
    } finally {
      await stranger.stop();
    }
  });

  test('a name that is taken is refused, whoever has a token', async () => {
    const line = await site.token();
    const result = await runCli(site.nodeArgs('x-taken', { line, id: 'n1' }), { env: site.env, timeoutMs: 30_000 });
    assert.equal(result.code, 1, result.stderr);
    assert.match(result.stderr, /already.*aiv node rm n1/);
    await site.waitForNode('n1');
  });

  test('a copy of a node is refused, and the first is not disturbed', async () => {
    const before = (await site.api('nodes/n1')).incarnation;
    // The log goes on from the agent's earlier run, whose link was closed when it stopped.
    const closed = count(site.logOf(site.nodes.get('n1')), 'link.closed');
    fs.mkdirSync(site.nodeDir('clone'));
    fs.cpSync(path.join(site.nodeDir('n1'), 'tls'), path.join(site.nodeDir('clone'), 'tls'), { recursive: true });
    const clone = site.startNode('clone', { id: '' });
    await waitFor('the copy says why it is not taken', () => /another agent with this node's identity/.test(site.logOf(clone)), { timeoutMs: 20_000 });
    await site.waitForEvent('node.link_refused', 'node/n1');
    const node = await site.waitForNode('n1');
    assert.equal(node.incarnation, before);
    assert.equal(count(site.logOf(site.nodes.get('n1')), 'link.closed'), closed, 'the first kept its link');
    await site.stopRun(clone);
  });

  test('a removed node is out at once, stays out, and joins again with a new token', async () => {
    const removed = await site.cli('node', 'rm', 'n1');
    assert.equal(removed.code, 0, removed.stderr);
    await waitFor('the agent says that it was removed', () => /was removed from the cluster/.test(site.logOf(site.nodes.get('n1'))), { timeoutMs: 20_000 });
    assert.ok(!(await site.api('nodes')).items.some((node) => node.id === 'n1'));
    await site.stopRun(site.nodes.get('n1'));
    const again = site.startNode('n1', { id: '' });
    await waitFor('its old certificate is refused', () => count(site.logOf(again), 'was removed from the cluster') >= 1, { timeoutMs: 20_000 });
    assert.ok(!(await site.api('nodes')).items.some((node) => node.id === 'n1'));
    await site.stopRun(again);
    fs.rmSync(path.join(site.nodeDir('n1'), 'tls'), { recursive: true });
    site.startNode('n1', { line: await site.token() });
    await site.waitForNode('n1');
  });
});

it('certificates are renewed over the living link before they expire', { timeout: 90_000 }, async () => {
  const site = await Site.start({ serverArgs: ['--node-certificate', '6s'] });
  try {
    const node = site.startNode('n1', { line: await site.token() });
    await site.waitForNode('n1');
    const file = path.join(site.nodeDir('n1'), 'tls/node.pem');
    const first = fs.readFileSync(file, 'utf8');
    await within('two renewals', 40_000, (async () => {
      await waitFor('a renewed certificate', () => fs.readFileSync(file, 'utf8') !== first, { timeoutMs: 20_000 });
      const second = fs.readFileSync(file, 'utf8');
      await waitFor('another one', () => fs.readFileSync(file, 'utf8') !== second, { timeoutMs: 20_000 });
    })());
    assert.equal(count(site.logOf(node), 'link.closed'), 0, 'the link was not dropped');
    await site.waitForEvent('node.certificate_renewed', 'node/n1');
    // The newest one is good for a new link.
    await site.stopRun(node);
    site.startNode('n1', { id: '' });
    await site.waitForNode('n1');
  } catch (error) {
    site.printLogs();
    throw error;
  } finally {
    await site.stop();
  }
});

it('a node whose certificate lapsed while it was off is a node again by itself', { timeout: 180_000 }, async () => {
  const site = await Site.start({ serverArgs: ['--node-certificate', '6s'] });
  try {
    const first = site.startNode('n1', { line: await site.token() });
    await site.waitForNode('n1', 'ready', 60_000);
    await site.stopRun(first);
    const file = path.join(site.nodeDir('n1'), 'tls/node.pem');
    const key = fs.readFileSync(path.join(site.nodeDir('n1'), 'tls/node.key'), 'utf8');
    const lapses = Date.parse(new crypto.X509Certificate(fs.readFileSync(file)).validTo);
    await waitFor('its certificate lapses', () => Date.now() > lapses + 1000, { timeoutMs: 30_000, everyMs: 200 });
    const again = site.startNode('n1', { id: '' });
    await site.waitForNode('n1', 'ready', 60_000);
    assert.match(site.logOf(again), /certificate\.lapsed/);
    const now = new crypto.X509Certificate(fs.readFileSync(file));
    assert.ok(Date.parse(now.validTo) > lapses);
    assert.equal(fs.readFileSync(path.join(site.nodeDir('n1'), 'tls/node.key'), 'utf8'), key, 'its key is the same');
    assert.equal((await site.api('tokens')).items[0].uses_left, 15, 'no token was spent');
  } catch (error) {
    site.printLogs();
    throw error;
  } finally {
    await site.stop();
  }
});
