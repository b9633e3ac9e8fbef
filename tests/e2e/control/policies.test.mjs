// What an operator says of GPUs, exclusive or off for hours of the week, kept by real processes. Memory kept for others and a
// GPU that is off at all hours: drain.test.mjs.
import assert from 'node:assert/strict';
import { withCluster } from '../lib/suite.mjs';
import { waitFor } from '../lib/wait.mjs';

const WAIT = { timeoutMs: 60_000 };
const DAYS = ['Su', 'Mo', 'Tu', 'We', 'Th', 'Fr', 'Sa'];

withCluster('policies', { gpus: 'A:8GiB,B:8GiB', args: ['--no-models'] }, (test) => {
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
});
