// Maintenance: nodes are drained one after the other, under load, and nobody who asks notices.
import assert from 'node:assert/strict';
import { withCluster } from '../lib/suite.mjs';
import { sleep, waitFor } from '../lib/wait.mjs';

const GPUS = 'A:8GiB;B:8GiB;C:8GiB';

// Asks at a fixed rate whatever the answers do, until told to stop; counts what was not a whole answer.
function load(cluster, { everyMs = 25 } = {}) {
  const state = { sent: 0, good: 0, bad: [], running: new Set(), stopped: false };
  const ask = async () => {
    const response = await cluster.fetch('/v1/chat/completions', {
      method: 'POST',
      body: { model: 'fake-small', stream: true, messages: [{ role: 'user', content: '#fake tokens=40 token_ms=10\nhello' }] },
    });
    const text = await response.text();
    if (response.status === 200 && text.trimEnd().endsWith('data: [DONE]') && !text.includes('"error"')) state.good += 1;
    else state.bad.push(`${response.status} ${text.slice(-200)}`);
  };
  state.loop = (async () => {
    while (!state.stopped) {
      state.sent += 1;
      const one = ask().catch((error) => state.bad.push(String(error)));
      state.running.add(one);
      one.finally(() => state.running.delete(one));
      await sleep(everyMs);
    }
    await Promise.all(state.running);
  })();
  state.stop = async () => {
    state.stopped = true;
    await state.loop;
    return state;
  };
  return state;
}

withCluster('drain', { gpus: GPUS, args: ['--no-models'] }, (test) => {
  test('a rolling drain of all nodes under load loses no request, and never falls below its replicas', async (cluster) => {
    const up = await cluster.cli('up', 'fake-small', '--name', 'fake-small', '--replicas', '2', '--slots', '16');
    assert.equal(up.code, 0, up.stderr);
    await cluster.waitForReplicas('fake-small', 2);
    const traffic = load(cluster);
    let fewest = 99;
    const watch = setInterval(() => {
      cluster
        .replicas('fake-small')
        .then((all) => (fewest = Math.min(fewest, all.filter((r) => r.state === 'ready').length)))
        .catch(() => {});
    }, 50);
    try {
      for (const node of ['n1', 'n2', 'n3']) {
        const drained = await cluster.cli('node', 'drain', node, '--wait', '--timeout', '60s');
        assert.equal(drained.code, 0, drained.stderr);
        assert.equal((await cluster.api(`nodes/${node}`)).state, 'draining');
        assert.equal((await cluster.replicas()).filter((replica) => replica.node === node).length, 0);
        await cluster.waitForReplicas('fake-small', 2);
        // Maintenance: the agent goes away and comes back.
        assert.equal((await cluster.cli('dev', 'kill', node, '--data', cluster.dir)).code, 0);
        assert.equal((await cluster.cli('dev', 'start', node, '--data', cluster.dir)).code, 0);
        assert.equal((await cluster.cli('node', 'undrain', node)).code, 0);
        await waitFor(`${node} is ready again`, async () => (await cluster.api(`nodes/${node}`)).state === 'ready', { timeoutMs: 30_000 });
      }
    } finally {
      clearInterval(watch);
      await traffic.stop();
    }
    console.log(`rolling drain: ${traffic.sent} requests, ${traffic.good} good, ${traffic.bad.length} bad, fewest ready replicas ${fewest}`);
    assert.deepEqual(traffic.bad, []);
    assert.ok(traffic.good > 50, `${traffic.good} requests are too few to say anything`);
    assert.ok(fewest >= 2, `only ${fewest} replicas were ready at one moment`);
  });

  test('a GPU that is switched off is emptied first and used again after', async (cluster) => {
    const [replica] = await cluster.waitForReplicas('fake-small', 2);
    const device = replica.devices[0].id;
    assert.equal((await cluster.cli('gpu', 'off', device)).code, 0);
    await waitFor(`${device} is empty`, async () => (await cluster.api(`devices/${device}`)).replicas.length === 0, { timeoutMs: 30_000 });
    await cluster.waitForReplicas('fake-small', 2);
    assert.equal((await cluster.cli('gpu', 'on', device)).code, 0);
    assert.equal((await cluster.api(`devices/${device}`)).off, false);
  });

  test('memory that is reserved for a person is not planned with', async (cluster) => {
    for (const node of ['n1', 'n2', 'n3']) assert.equal((await cluster.cli('gpu', 'reserve', `${node}/0`, '7GiB')).code, 0);
    const device = await cluster.api('devices/n1/0');
    assert.equal(device.reserve_bytes, 7 * 2 ** 30);
    assert.equal(device.budget_bytes, device.vram_bytes - 7 * 2 ** 30);
    const refused = await cluster.cli('up', 'fake:fake-small?weights=3GiB', '--name', 'big', '--replicas', '1');
    assert.equal(refused.code, 4, refused.stderr);
    for (const node of ['n1', 'n2', 'n3']) assert.equal((await cluster.cli('gpu', 'release', `${node}/0`)).code, 0);
    const placed = await cluster.cli('up', 'fake:fake-small?weights=3GiB', '--name', 'big', '--replicas', '1');
    assert.equal(placed.code, 0, placed.stderr);
    await cluster.cli('down', 'big');
  });

  test('labels, taints and the failure domain are set and shown; unknown fields are refused by name', async (cluster) => {
    const labelled = await cluster.cli('node', 'label', 'n1', 'zone=a', 'rack=7', '--domain', 'room1', '--taint', 'exam');
    assert.equal(labelled.code, 0, labelled.stderr);
    const node = await cluster.api('nodes/n1');
    assert.deepEqual([node.labels, node.taints, node.failure_domain], [{ zone: 'a', rack: '7' }, ['exam'], 'room1']);
    await cluster.cli('node', 'label', 'n1', 'rack-', '--no-taints');
    assert.deepEqual((await cluster.api('nodes/n1')).labels, { zone: 'a' });
    await assert.rejects(cluster.api('nodes/n1', { method: 'PATCH', body: { drainin: true } }), /drainin/);
    await assert.rejects(cluster.api('nodes/n1', { method: 'PATCH', body: { labels: { 'a b': 'c' } } }), /labels/);
    assert.equal((await cluster.cli('node', 'drain', 'nope')).code, 3);
    assert.equal((await cluster.cli('node', 'rm', 'n1')).code, 1, 'it runs replicas');
  });
});
