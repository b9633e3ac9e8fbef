// What an operator says of GPUs, exclusive or off for hours of the week, kept by real processes. Memory kept for others and a
// GPU that is off at all hours: drain.test.mjs.
import assert from 'node:assert/strict';
import { withCluster } from '../lib/suite.mjs';
import { waitFor } from '../lib/wait.mjs';

const WAIT = { timeoutMs: 60_000 };
const DAYS = ['Su', 'Mo', 'Tu', 'We', 'Th', 'Fr', 'Sa'];

withCluster('policies', { gpus: 'A:8GiB,B:8GiB', args: ['--no-models'], testTimeoutMs: 300_000 }, (test) => {
  const up = (cluster, name, gib, ...flags) => cluster.cli('up', `fake:fake-small?weights=${gib}GiB`, '--name', name, ...flags);
  const run = async (cluster, ...args) => {
    const done = await cluster.cli(...args);
    assert.equal(done.code, 0, done.stderr);
  };
  const on = async (cluster, device) => (await cluster.api(`devices/${device}`)).replicas;

  test('an exclusive GPU takes one replica, and who finds no other is refused', async (cluster) => {
    for (const gpu of ['n1/0', 'n1/1']) await run(cluster, 'gpu', 'exclusive', gpu);
    for (const name of ['x1', 'x2']) assert.equal((await up(cluster, name, 1)).code, 0);
    for (const gpu of ['n1/0', 'n1/1']) assert.equal((await on(cluster, gpu)).length, 1);
    const third = await up(cluster, 'x3', 1);
    assert.equal(third.code, 4, third.stderr);
    await run(cluster, 'gpu', 'shared', 'n1/0');
    assert.equal((await up(cluster, 'x3', 1)).code, 0);
    await run(cluster, 'gpu', 'shared', 'n1/1');
    assert.equal((await on(cluster, 'n1/0')).length, 2);
  });

  test('a GPU is empty in the hours in which it is off, and used again in the others', async (cluster) => {
    await run(cluster, 'gpu', 'off', 'n1/1', '--hours', '00-24');
    await waitFor('n1/1 is empty', async () => (await on(cluster, 'n1/1')).length === 0, WAIT);
    await waitFor('all three are ready elsewhere', async () => {
      const ready = (await cluster.replicas()).filter((replica) => /^x\d$/.test(replica.deployment) && replica.state === 'ready');
      return ready.length === 3 && ready.every((replica) => replica.devices.every((device) => device.id === 'n1/0'));
    }, WAIT);
    const far = DAYS[(new Date().getDay() + 3) % 7];
    await run(cluster, 'gpu', 'off', 'n1/1', '--hours', `${far} 08-18`);
    assert.equal((await cluster.api('devices/n1/1')).off_hours, `${far} 08-18`);
    assert.equal((await up(cluster, 'x4', 7)).code, 0);
    assert.equal((await on(cluster, 'n1/1')).length, 1, 'it fits nowhere else');
    await run(cluster, 'down', 'x4');
    const wrong = await cluster.cli('gpu', 'off', 'n1/1', '--hours', 'Xy 08-18');
    assert.notEqual(wrong.code, 0);
    assert.match(wrong.stderr, /Xy/);
  });

  const askUntilAnswered = (cluster, model) =>
    waitFor(`${model} answers`, async () => {
      const answer = await cluster.fetch('/v1/chat/completions', { method: 'POST', body: { model, max_tokens: 4, messages: [{ role: 'user', content: 'hi' }] } });
      const body = await answer.json();
      if (answer.status === 503) return null; // the others were loaded a moment ago
      assert.equal(answer.status, 200, JSON.stringify(body));
      return body;
    }, { timeoutMs: 120_000, everyMs: 500 });

  // Three models of one card each on two cards that take one at a time. The pinned one would be the cheapest to lose.
  test('a model on demand that is asked for takes the place of an idle one, never that of a pinned one', async (cluster) => {
    for (const name of ['x1', 'x2', 'x3']) await run(cluster, 'down', name);
    for (const gpu of ['n1/0', 'n1/1']) await run(cluster, 'gpu', 'exclusive', gpu);
    assert.equal((await up(cluster, 'pinned', 1, '--pin', '--on-demand', '--priority', '1')).code, 0);
    assert.equal((await cluster.api('deployments/pinned')).pinned, true);
    for (const name of ['a', 'b']) assert.equal((await up(cluster, name, 1, '--on-demand')).code, 0);
    await askUntilAnswered(cluster, 'pinned');
    const [kept] = await cluster.replicas('pinned');
    await askUntilAnswered(cluster, 'a');
    const [before] = await cluster.replicas('a');
    await askUntilAnswered(cluster, 'b');
    const evicted = (await cluster.items('events')).filter((event) => event.kind === 'replica.evicted' && event.subject === `replica/${before.id}`);
    assert.equal(evicted.length, 1);
    assert.match(evicted[0].reason, /its 1\.2 GiB on n1\/[01] make room for b\b/);
    assert.deepEqual(await cluster.replicas('a'), []);
    const [still] = await cluster.replicas('pinned');
    assert.deepEqual([still.id, still.pid, still.state], [kept.id, kept.pid, 'ready']);
  });
});
