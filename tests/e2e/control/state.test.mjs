// What must never be lost, and what explains itself: backups, the audit chain, events over restarts, what-if answers.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { runCli } from '../lib/cluster.mjs';
import { Site } from '../lib/site.mjs';
import { withCluster } from '../lib/suite.mjs';
import { waitFor } from '../lib/wait.mjs';

const ok = (result) => {
  assert.equal(result.code, 0, result.stderr);
  return result.stdout;
};

withCluster('explanations', { gpus: 'A:8GiB;B:8GiB;C:8GiB', args: ['--no-models'] }, (test) => {
  test('"what if this node dies" is answered by the planner: where, how many bytes, why not', async (cluster) => {
    ok(await cluster.cli('up', 'fake-small', '--name', 'two', '--replicas', '2'));
    ok(await cluster.cli('up', 'fake:fake-small?weights=5GiB', '--name', 'one', '--replicas', '1'));
    const [replica] = await cluster.replicas('one');
    const answer = JSON.parse(ok(await cluster.cli('plan', '--drop', replica.node, '--json')));
    assert.equal(answer.survives, false, 'the only replica of one is there');
    const hit = answer.deployments.find((each) => each.deployment === 'one');
    assert.deepEqual([hit.ready_before, hit.ready_left, hit.wanted, hit.after], [1, 0, 1, 1]);
    const load = answer.loads.find((each) => each.deployment === 'one');
    assert.notEqual(load.node, replica.node);
    assert.ok(load.devices[0].bytes > 5 * 2 ** 30);
    // It was a question: nothing moved.
    assert.deepEqual((await cluster.replicas('one')).map((each) => each.id), [replica.id]);
    const words = ok(await cluster.cli('plan', '--drop', replica.node));
    assert.match(words, /one/);
    assert.equal((await cluster.cli('plan', '--drop', 'nope')).code, 3);
    const standing = await cluster.api('plans');
    assert.ok(standing.items.some((each) => each.drop === replica.node && !each.survives));
    assert.match(ok(await cluster.cli('ps')), new RegExp(`if ${replica.node} dies.*one`));
    // And it is what happens.
    ok(await cluster.cli('dev', 'kill', replica.node, '--data', cluster.dir));
    const moved = await waitFor('one is ready elsewhere', async () => (await cluster.replicas('one')).find((each) => each.state === 'ready' && each.node !== replica.node), { timeoutMs: 30_000 });
    assert.equal(moved.node, load.node);
    ok(await cluster.cli('dev', 'start', replica.node, '--data', cluster.dir));
    ok(await cluster.cli('wait', `node/${replica.node}`, '--timeout', '30s'));
  });

  test('wait, top, doctor and show: each says what it knows', async (cluster) => {
    ok(await cluster.cli('wait', 'deployment/two', '--for', 'ready', '--timeout', '30s'));
    const late = await cluster.cli('wait', 'deployment/none', '--timeout', '300ms');
    assert.equal(late.code, 7, late.stderr);
    assert.equal((await cluster.cli('wait', 'thing/x')).code, 2);
    assert.match(ok(await cluster.cli('top')), /GPU.*\n[\s\S]*two/);
    assert.equal(JSON.parse(ok(await cluster.cli('top', '--json'))).devices.length, 3);
    const doctor = await cluster.cli('doctor');
    assert.equal(doctor.code, 1, 'one dies with its node');
    assert.match(doctor.stdout, /deployment\/one.*\n.*--replicas 2/);
    const shown = JSON.parse(ok(await cluster.cli('show', 'two')));
    assert.equal(shown.why.length, 2);
    assert.match(shown.why[0].why, /GiB|MiB/);
    ok(await cluster.cli('down', 'one'));
    ok(await cluster.cli('wait', 'deployment/one', '--for', 'gone', '--timeout', '10s'));
  });

  test('replicas go only to nodes with the labels that were asked for, and not to tainted ones', async (cluster) => {
    ok(await cluster.cli('node', 'label', 'n3', 'zone=b'));
    ok(await cluster.cli('up', 'fake-small', '--name', 'picky', '--replicas', '1', '--on', 'zone=b', '--priority', '50'));
    assert.deepEqual((await cluster.replicas('picky')).map((each) => each.node), ['n3']);
    assert.equal((await cluster.api('deployments/picky')).priority, 50);
    ok(await cluster.cli('node', 'label', 'n2', '--taint', 'exam'));
    const nowhere = await cluster.cli('up', 'fake-small', '--name', 'exam', '--on', 'zone=nowhere');
    assert.equal(nowhere.code, 4, nowhere.stderr);
    ok(await cluster.cli('up', 'fake-small', '--name', 'wide', '--replicas', '1..3', '--tolerate', 'exam'));
    assert.deepEqual((({ min, max }) => [min, max])((await cluster.api('deployments/wide')).replicas), [1, 3]);
    const many = await cluster.cli('up', 'fake-small', '--name', 'all', '--replicas', '3', '--no-wait', '--pending');
    ok(many);
    await waitFor('two of three are placed', async () => (await cluster.replicas('all')).filter((each) => each.state === 'ready').length === 2, { timeoutMs: 20_000 });
    assert.ok((await cluster.replicas('all')).every((each) => each.node !== 'n2'), 'the tainted node is left alone');
  });
});

describe('state', { concurrency: false }, () => {
  it('a backup brings everything back, on an epoch that agents and gateway obey; the audit chain shows every change', { timeout: 120_000 }, async () => {
    const site = await Site.start();
    try {
      site.startNode('n1', { line: await site.token() });
      await site.waitForNode('n1');
      ok(await site.cli('up', 'fake-small', '--name', 'kept', '--replicas', '1'));
      const file = path.join(site.dir, 'state.backup');
      assert.match(ok(await site.cli('server', 'backup', file, '--data', site.data)), /revision \d+.*verified/);
      assert.equal(fs.statSync(file).mode & 0o077, 0);
      assert.equal((await site.cli('server', 'backup', file, '--data', site.data)).code, 1, 'no file is overwritten');
      const running = await site.cli('server', 'restore', file, '--data', site.data, '--yes');
      assert.equal(running.code, 1);
      assert.match(running.stderr, /pid \d+/);
      ok(await site.cli('down', 'kept'));
      ok(await site.cli('key', 'create', 'later'));
      assert.match(ok(await site.cli('audit', 'verify')), /the chain is whole/);
      const audit = JSON.parse(ok(await site.cli('audit', 'ls', '--json')));
      assert.ok(audit.items.some((item) => item.action === 'deployment.deleted' && item.object === 'deployment/kept'));
      const lastEvent = (await site.api('events')).items.at(-1);

      await site.stopRun(site.server);
      // What was changed by hand, or cut, is not taken.
      const bad = path.join(site.dir, 'bad.backup');
      const bytes = fs.readFileSync(file);
      bytes[Math.floor(bytes.length / 2)] ^= 1;
      fs.writeFileSync(bad, bytes.subarray(0, bytes.length - 5000));
      const refused = await site.cli('server', 'restore', bad, '--data', site.data, '--yes');
      assert.equal(refused.code, 1, refused.stdout);
      assert.ok(fs.existsSync(path.join(site.data, 'state.db')));
      const asked = await runCli(['server', 'restore', file, '--data', site.data]);
      assert.equal(asked.code, 2, 'it only checks without --yes');
      assert.match(ok(await site.cli('server', 'restore', file, '--data', site.data, '--yes')), /again; the old one is kept as/);

      await site.startServer();
      await site.waitForNode('n1');
      assert.ok((await site.api('events')).items.some((event) => event.seq === lastEvent.seq && event.kind === lastEvent.kind), 'events outlive the server');
      ok(await site.cli('wait', 'deployment/kept', '--timeout', '30s'));
      await waitFor('an answer of the restored deployment', async () => {
        const answer = await fetch(`${site.url}/v1/chat/completions`, {
          method: 'POST',
          headers: { authorization: `Bearer ${site.key}`, 'content-type': 'application/json' },
          body: JSON.stringify({ model: 'kept', messages: [{ role: 'user', content: 'hello' }] }),
        });
        await answer.text();
        return answer.status === 200;
      });
      assert.match(ok(await site.cli('audit', 'verify')), /the chain is whole/);
    } catch (error) {
      site.printLogs();
      throw error;
    } finally {
      await site.stop();
    }
  });
});

withCluster('on demand', { gpus: 'A:8GiB;B:8GiB', args: ['--no-models'] }, (test) => {
  test('a deployment on demand holds nothing until the first request, which loads it', async (cluster) => {
    ok(await cluster.cli('up', 'fake-small', '--name', 'rare', '--on-demand', '--replicas', '1', '--slots', '4'));
    await waitFor('it is idle', async () => (await cluster.api('deployments/rare')).state === 'idle', { timeoutMs: 15_000 });
    assert.equal((await cluster.replicas('rare')).length, 0);
    const response = await cluster.fetch('/v1/chat/completions', {
      method: 'POST',
      body: { model: 'rare', stream: true, messages: [{ role: 'user', content: 'hello' }] },
    });
    const text = await response.text();
    assert.equal(response.status, 200, text);
    assert.match(text, /data: \[DONE\]/);
    assert.equal((await cluster.replicas('rare')).length, 1);
  });

  // The mean that is planned with is of half a minute, and must lie above the threshold for another half: see
  // core/autoscale.hpp. Sooner than that would be wrong, too.
  test('a deployment of 1..2 replicas becomes two under a load that stays, and says why', async (cluster) => {
    ok(await cluster.cli('up', 'fake-small', '--name', 'busy', '--replicas', '1..2', '--slots', '2'));
    assert.equal((await cluster.replicas('busy')).length, 1);
    const began = Date.now();
    let stopped = false;
    const bad = [];
    const client = async () => {
      while (!stopped) {
        const response = await cluster.fetch('/v1/chat/completions', {
          method: 'POST',
          body: { model: 'busy', stream: true, messages: [{ role: 'user', content: '#fake tokens=20 token_ms=10\nhello' }] },
        });
        const text = await response.text();
        if (response.status !== 200) bad.push(`${response.status} ${text.slice(-200)}`);
      }
    };
    const clients = Array.from({ length: 8 }, () => client().catch((error) => bad.push(String(error))));
    try {
      await waitFor('a second replica is ready', async () => (await cluster.replicas('busy')).filter((each) => each.state === 'ready').length === 2, { timeoutMs: 120_000, everyMs: 250 });
    } finally {
      stopped = true;
      await Promise.all(clients);
    }
    console.log(`scaled from 1 to 2 after ${Math.round((Date.now() - began) / 1000)} s of load`);
    assert.ok(Date.now() - began > 30_000, 'not by a burst');
    assert.deepEqual(bad, []);
    const scaled = (await cluster.api('events')).items.find((event) => event.kind === 'deployment.scaled' && event.subject === 'deployment/busy');
    assert.match(JSON.stringify(scaled), /1 -> 2 replicas: .* requests at once on 2 slots/);
  });
});
