// What happens when parts die or hang (fake engine, real processes).
import assert from 'node:assert/strict';
import { withCluster } from '../lib/suite.mjs';
import { isAlive, killHard, stopProcess } from '../lib/processes.mjs';
import { readEvents, textOf } from '../lib/sse.mjs';
import { waitFor } from '../lib/wait.mjs';

const MODEL = 'fake-small';
const chat = (content, more = {}) => ({ model: MODEL, messages: [{ role: 'user', content }], ...more });
const post = (cluster, body, options = {}) => cluster.fetch('/v1/chat/completions', { method: 'POST', body, ...options });

const busySlots = async (cluster) => (await cluster.replicas(MODEL)).reduce((sum, r) => sum + r.slots_busy, 0);

// The answer of an engine that nobody disturbs.
async function undisturbed(cluster, content) {
  const response = await post(cluster, chat(content));
  assert.equal(response.status, 200);
  return (await response.json()).choices[0].message.content;
}

withCluster('One node', { gpus: 'GTX 1080:8GiB' }, (test) => {
  test('frees the slot within a second when the client leaves: in mid-stream, before the first token, waiting for the whole', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 1);
    const cases = {
      'in mid-stream': chat('#fake tokens=10000 token_ms=20', { stream: true }),
      'before the first token': chat('#fake first_ms=60000', { stream: true }),
      'waiting for the whole answer': chat('#fake tokens=10000 token_ms=20'),
    };
    for (const [name, body] of Object.entries(cases)) {
      const abort = new AbortController();
      const pending = post(cluster, body, { signal: abort.signal }).then((response) => readEvents(response));
      pending.catch(() => {});
      await waitFor(`${name}: a slot is busy`, async () => (await busySlots(cluster)) === 1);
      const left = Date.now();
      abort.abort();
      await waitFor(`${name}: the slot is free again`, async () => (await busySlots(cluster)) === 0, { timeoutMs: 5000, everyMs: 10 });
      assert.ok(Date.now() - left < 1000, `${name}: free after ${Date.now() - left} ms`);
      await pending.catch(() => {});
    }
  });

  // A form that is bound by a schema cannot be continued on another engine.
  const BOUND = { response_format: { type: 'json_object' } };

  test('ends a bound stream whose engine dies with an error event, never as if complete, and is served again', async (cluster) => {
    const [before] = await cluster.waitForReplicas(MODEL, 1);
    const response = await post(cluster, chat('#fake tokens=40 token_ms=5 die_at=7', { stream: true, ...BOUND }));
    assert.equal(response.status, 200);
    const { events } = await readEvents(response);
    assert.ok(!events.includes('[DONE]'), 'no end mark');
    const error = JSON.parse(events.at(-1)).error;
    assert.ok(error, `the last event is an error: ${events.at(-1)}`);
    assert.deepEqual(Object.keys(error).sort(), ['code', 'message', 'param', 'type']);
    assert.ok(!events.slice(0, -1).some((data) => JSON.parse(data).choices?.[0]?.finish_reason), 'no finish_reason');
    await waitFor('the engine is gone', () => !isAlive(before.pid));
    await waitFor('a new process is ready', async () => (await cluster.replicas(MODEL)).find((r) => r.state === 'ready' && r.pid !== before.pid), { timeoutMs: 20_000 });
    await waitFor('it answers again', () => undisturbed(cluster, 'hello'));
  });

  test('makes the official client throw when a stream is broken', async (cluster) => {
    for (const fault of ['eof_at', 'error_at']) {
      await waitFor('it answers', () => undisturbed(cluster, 'hello'));
      await assert.rejects(async () => {
        for await (const chunk of await cluster.openai().chat.completions.create({ ...chat(`#fake tokens=20 ${fault}=5`), ...BOUND, stream: true })) void chunk;
      });
    }
  });

  test('answers 5xx, not a cut body, when an answer that is not streamed breaks', async (cluster) => {
    await waitFor('it answers', () => undisturbed(cluster, 'hello'));
    const response = await post(cluster, chat('#fake tokens=20 eof_at=5'));
    assert.ok(response.status >= 500, `${response.status}`);
    const { error } = await response.json();
    assert.equal(typeof error.message, 'string');
  });

  test('kill -9 of an idle engine: the replica is back with a new process', async (cluster) => {
    const [before] = await cluster.waitForReplicas(MODEL, 1);
    await killHard(before.pid);
    const after = await waitFor('a new process is ready', async () => (await cluster.replicas(MODEL)).find((r) => r.state === 'ready' && r.pid !== before.pid), { timeoutMs: 20_000 });
    assert.ok(isAlive(after.pid));
    await waitFor('it answers', () => undisturbed(cluster, 'hello'));
  });

  test('kill -9 of the agent: the engine goes on and is adopted, not reloaded', async (cluster) => {
    const [before] = await cluster.waitForReplicas(MODEL, 1);
    await killHard(cluster.agentPid('n1'));
    assert.ok(isAlive(before.pid), 'the engine outlives its agent');
    // aiv dev may bring the agent back by itself; otherwise it is started by hand.
    const back = await waitFor('the agent is back', () => cluster.agentPid('n1'), { timeoutMs: 1500 }).catch(() => null);
    if (!back) assert.equal((await cluster.cli('dev', 'start', 'n1', '--data', cluster.dir)).code, 0);
    await waitFor('the node is ready', async () => (await cluster.items('nodes')).find((n) => n.id === 'n1' && n.state === 'ready'), { timeoutMs: 15_000 });
    const [after] = await cluster.waitForReplicas(MODEL, 1);
    assert.equal(after.pid, before.pid);
    await waitFor('it answers', () => undisturbed(cluster, 'hello'));
    assert.equal((await cluster.replicas(MODEL)).length, 1);
  });

  test('kill -9 of the controller costs no request; kill -9 of the gateway is healed by its parent', async (cluster) => {
    const [before] = await cluster.waitForReplicas(MODEL, 1);
    assert.equal((await cluster.cli('dev', 'kill', 'controller', '--data', cluster.dir)).code, 0);
    for (let i = 0; i < 20; ++i) await undisturbed(cluster, `#fake tokens=2\n${i}`);
    await waitFor('the API is back', () => cluster.items('nodes'), { timeoutMs: 10_000 });
    assert.equal((await cluster.cli('dev', 'kill', 'gateway', '--data', cluster.dir)).code, 0);
    await waitFor('it serves again', () => undisturbed(cluster, 'hello'), { timeoutMs: 10_000 });
    const [after] = await cluster.waitForReplicas(MODEL, 1);
    assert.equal(after.pid, before.pid);
  });

  test('a server that is killed and started again knows everything, and the engines ran on', async (cluster) => {
    const [before] = await cluster.waitForReplicas(MODEL, 1);
    const deployments = (await cluster.items('deployments')).map((d) => d.name);
    assert.equal((await cluster.cli('dev', 'kill', 'server', '--data', cluster.dir)).code, 0);
    await waitFor('nobody answers', () => cluster.fetch('/health').then(() => false, () => true));
    assert.ok(isAlive(before.pid));
    assert.equal((await cluster.cli('dev', 'start', 'server', '--data', cluster.dir)).code, 0);
    await waitFor('it serves again', () => undisturbed(cluster, 'hello'), { timeoutMs: 20_000 });
    const [after] = await cluster.waitForReplicas(MODEL, 1);
    assert.equal(after.pid, before.pid);
    assert.deepEqual((await cluster.items('deployments')).map((d) => d.name), deployments);
  });
});

withCluster('Two nodes', { gpus: 'GTX 1080:8GiB;RTX 3060:12GiB' }, (test) => {
  test('retry elsewhere what breaks before its first byte', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    for (const stream of [true, false]) {
      const content = `#fake tokens=10 first_ms=1500\n${stream}`;
      const pending = post(cluster, chat(content, { stream }));
      const victim = await waitFor('one replica answers', () => cluster.answering(MODEL));
      await killHard(victim.pid);
      const response = await pending;
      assert.equal(response.status, 200);
      const text = stream ? textOf((await readEvents(response)).events) : (await response.json()).choices[0].message.content;
      assert.equal(text, await undisturbed(cluster, content));
      await waitFor('the victim is replaced', async () => {
        const ready = (await cluster.replicas(MODEL)).filter((r) => r.state === 'ready');
        return ready.length === 2 && ready.every((r) => r.pid !== victim.pid);
      }, { timeoutMs: 20_000 });
    }
  });

  test('serve on while one of them is dead, and take it back', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    assert.equal((await cluster.cli('dev', 'kill', 'n1', '--data', cluster.dir)).code, 0);
    for (let i = 0; i < 20; ++i) await undisturbed(cluster, `#fake tokens=2\n${i}`);
    await waitFor('n1 is not ready', async () => (await cluster.items('nodes')).find((n) => n.id === 'n1').state !== 'ready');
    assert.equal((await cluster.cli('dev', 'start', 'n1', '--data', cluster.dir)).code, 0);
    await cluster.waitForReplicas(MODEL, 2);
  });

  test('do not send a third replica a request that killed two', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    const response = await post(cluster, chat('#fake die_at=0 first_ms=200'));
    assert.ok(response.status >= 500);
    assert.equal(response.headers.get('x-should-retry'), 'false');
    await cluster.waitForReplicas(MODEL, 2);
    await waitFor('it answers', () => undisturbed(cluster, 'hello'));
  });

  test('route around an engine that is stopped', async (cluster) => {
    const [first] = await cluster.waitForReplicas(MODEL, 2);
    await stopProcess(first.pid);
    try {
      // A stopped engine still accepts connections: its silence is the only sign, and takes 10 s to be one.
      const answers = await Promise.all(
        Array.from({ length: 6 }, async (_, i) => {
          const { events } = await readEvents(await post(cluster, chat(`#fake tokens=2\n${i}`, { stream: true })));
          assert.equal(events.at(-1), '[DONE]');
          return textOf(events);
        }),
      );
      for (const [i, text] of answers.entries()) assert.equal(text.trim().split(' ').length, 2, `${i}: ${text}`);
      // Now that it is known to be silent nobody waits for it.
      const started = Date.now();
      for (let i = 0; i < 4; ++i) await undisturbed(cluster, `#fake tokens=2\n${i}`);
      assert.ok(Date.now() - started < 5000);
    } finally {
      if (isAlive(first.pid)) process.kill(first.pid, 'SIGCONT');
    }
  });
});

withCluster('Engines that fail to load', { gpus: 'GTX 1080:8GiB', args: ['--no-models'] }, (test) => {
  const up = (cluster, model, name) => cluster.cli('up', `fake:${model}`, '--name', name, { timeoutMs: 60_000 });
  const neverReady = async (cluster, name, reason) => {
    const result = await up(cluster, `fake-small?${name.split('/')[1]}`, name.split('/')[0]);
    assert.ok([1, 4].includes(result.code), `exit ${result.code}\n${result.stderr}`);
    assert.match(result.stderr, reason);
    const replicas = await cluster.replicas(name.split('/')[0]);
    assert.ok(replicas.every((r) => r.state !== 'ready'), JSON.stringify(replicas));
    assert.equal((await cluster.cli('down', name.split('/')[0])).code, 0);
  };

  test('weights on the CPU: refused with the bytes', (cluster) => neverReady(cluster, 'cpu/cpu_weights=64MiB', /CPU.*64\.0 MiB/));
  test('cache on the CPU: refused', (cluster) => neverReady(cluster, 'cache/cpu_kv=1', /CPU/));
  test('more graph splits than devices explain: refused', (cluster) => neverReady(cluster, 'splits/splits=50', /split/));
  test('a log that is not understood: refused, never passed', (cluster) => neverReady(cluster, 'garbled/garbled_log=1', /no weights on \S+/));
  test('out of memory: failed with what did not fit', (cluster) => neverReady(cluster, 'oom/oom=kv', /cache|fit/i));
  test('an engine that exits while loading: failed with its status', (cluster) => neverReady(cluster, 'exits/load_exit=7', /exit 7/));

  test('the cluster is none the worse for it', async (cluster) => {
    await waitFor('no replica is left', async () => (await cluster.replicas()).length === 0);
    assert.equal((await up(cluster, 'fake-small', 'good')).code, 0);
    await cluster.waitForReplicas('good', 1);
  });
});
