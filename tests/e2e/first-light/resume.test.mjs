// A replica dies or hangs in the middle of a streamed answer: the client sees one unbroken stream (fake engine and
// the real one, real processes).
import assert from 'node:assert/strict';
import path from 'node:path';
import { describe, it } from 'node:test';
import { engineDir, repository } from '../lib/places.mjs';
import { isAlive, killHard, stopProcess } from '../lib/processes.mjs';
import { readEvents, textOf } from '../lib/sse.mjs';
import { withCluster } from '../lib/suite.mjs';
import { waitFor } from '../lib/wait.mjs';

const MODEL = 'fake-small';
const DEMO = path.join(repository, 'models/demo.gguf');

const TOOLS = [{ type: 'function', function: { name: 'weather', description: 'The weather of a place', parameters: { type: 'object', properties: { place: { type: 'string' } } } } }];
const ask = (model, content, more = {}) => ({ model, messages: [{ role: 'user', content }], stream: true, ...more });

// The whole answer of a model that nobody disturbs.
async function undisturbed(cluster, body, route = '/v1/chat/completions') {
  const response = await cluster.fetch(route, { method: 'POST', body });
  assert.equal(response.status, 200);
  const { events } = await readEvents(response);
  assert.equal(events.at(-1), '[DONE]');
  return events;
}

// Streams `body`, does `fault` to the replica that answers after `after` events with text, and reads to the end.
async function broken(cluster, body, fault, { after = 5, route = '/v1/chat/completions', times = 1 } = {}) {
  const response = await cluster.fetch(route, { method: 'POST', body });
  assert.equal(response.status, 200);
  const events = [];
  let buffer = '';
  let faults = 0;
  let last = Date.now();
  let gap = 0;
  const decoder = new TextDecoder();
  for await (const bytes of response.body) {
    buffer += decoder.decode(bytes, { stream: true });
    for (let end = buffer.indexOf('\n\n'); end >= 0; end = buffer.indexOf('\n\n')) {
      const block = buffer.slice(0, end);
      buffer = buffer.slice(end + 2);
      if (!block.startsWith('data: ')) continue;
      gap = Math.max(gap, Date.now() - last);
      last = Date.now();
      events.push(block.slice(6));
    }
    if (faults < times && events.length > after * (faults + 1)) {
      ++faults;
      await fault(await waitFor('the replica that answers', () => cluster.answering(body.model)));
    }
  }
  assert.equal(faults, times, `the stream was long enough: ${events.length} events`);
  return { events, gap };
}

// One answer: the same text, one end, the same identity in all events.
function assertUnbroken(events, expected) {
  assert.equal(events.at(-1), '[DONE]', `ends with ${events.at(-1)}`);
  const chunks = events.slice(0, -1).map((data) => JSON.parse(data));
  assert.equal(textOf(events), textOf(expected));
  assert.equal(new Set(chunks.map((c) => `${c.id} ${c.model}`)).size, 1);
  const finishes = (list) => list.filter((data) => data !== '[DONE]').map((data) => JSON.parse(data).choices[0]?.finish_reason).filter(Boolean);
  assert.deepEqual(finishes(events), finishes(expected));
  assert.equal(chunks.filter((c) => c.choices[0]?.delta?.role).length, 1);
}

const metric = async (cluster, name) => {
  const text = await (await cluster.fetch('/metrics')).text();
  return [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\d+)`, 'gm'))].reduce((sum, m) => sum + Number(m[1]), 0);
};

withCluster('Two nodes', { gpus: 'GTX 1080:8GiB;RTX 3060:12GiB' }, (test) => {
  const LONG = '#fake tokens=200 token_ms=20';

  test('kill -9 of the engine: another replica goes on, byte for byte, and usage is counted once', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    const body = ask(MODEL, LONG, { stream_options: { include_usage: true }, max_tokens: 150 });
    const expected = await undisturbed(cluster, { ...body, messages: [{ role: 'user', content: LONG }] });
    const { events, gap } = await broken(cluster, body, (replica) => killHard(replica.pid));
    assertUnbroken(events, expected);
    const usageOf = (list) => JSON.parse(list.at(-2)).usage;
    assert.equal(usageOf(events).completion_tokens, 150);
    assert.equal(usageOf(events).prompt_tokens, usageOf(expected).prompt_tokens);
    assert.equal(usageOf(events).total_tokens, usageOf(expected).total_tokens);
    assert.ok(gap < 5000, `the longest silence was ${gap} ms`);
    assert.equal(await metric(cluster, 'aivailable_resumes_total'), 1);
  });

  test('kill -9 of the agent: the stream goes on elsewhere, the engine is adopted', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    const body = ask(MODEL, `${LONG}\nagent`);
    const expected = await undisturbed(cluster, body);
    let node;
    const { events } = await broken(cluster, body, (replica) => {
      node = replica.node;
      return killHard(cluster.agentPid(node));
    });
    assertUnbroken(events, expected);
    if (!cluster.processes().some(({ command }) => command.includes(` node `) && command.includes(`/nodes/${node}`)))
      await cluster.cli('dev', 'start', node, '--data', cluster.dir);
    await cluster.waitForReplicas(MODEL, 2);
  });

  test('SIGSTOP of the engine: it is found by its silence and left', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    const body = ask(MODEL, `${LONG}\nstop`);
    const expected = await undisturbed(cluster, body);
    let stopped;
    try {
      const { events, gap } = await broken(cluster, body, (replica) => {
        stopped = replica.pid;
        return stopProcess(stopped);
      });
      assertUnbroken(events, expected);
      assert.ok(gap < 10_000, `the longest silence was ${gap} ms`);
    } finally {
      if (stopped && isAlive(stopped)) process.kill(stopped, 'SIGCONT');
    }
    await cluster.waitForReplicas(MODEL, 2);
  });

  test('an answer that is not streamed leaves a stopped engine too', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    const body = { ...ask(MODEL, '#fake tokens=20 first_ms=3000\nwhole'), stream: false };
    const expected = await (await cluster.fetch('/v1/chat/completions', { method: 'POST', body })).json();
    const pending = cluster.fetch('/v1/chat/completions', { method: 'POST', body });
    const began = Date.now();
    const replica = await waitFor('one is busy', () => cluster.answering(MODEL));
    await stopProcess(replica.pid);
    try {
      const response = await pending;
      assert.equal(response.status, 200);
      assert.equal((await response.json()).choices[0].message.content, expected.choices[0].message.content);
      assert.ok(Date.now() - began < 20_000, `took ${Date.now() - began} ms`);
    } finally {
      if (isAlive(replica.pid)) process.kill(replica.pid, 'SIGCONT');
    }
    await cluster.waitForReplicas(MODEL, 2);
  });

  test('text in any script is cut and joined at whole characters, and a stop string over the cut is obeyed', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    const say = 'Καλημέρα κόσμε, 你好世界, 🙂🙃 naïve — and then the END of it all, which nobody reads.';
    const body = ask(MODEL, `#fake token_ms=60 say=${say}`, { stop: ['END'] });
    const expected = await undisturbed(cluster, body);
    assert.equal(textOf(expected), say.slice(0, say.indexOf('END')));
    for (const after of [2, 9, 20]) {
      const { events } = await broken(cluster, body, (replica) => killHard(replica.pid), { after });
      assertUnbroken(events, expected);
      await cluster.waitForReplicas(MODEL, 2);
    }
  });

  test('a completion is continued like a chat', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    const body = { model: MODEL, prompt: `${LONG}\nOnce upon`, stream: true };
    const expected = await undisturbed(cluster, body, '/v1/completions');
    const { events } = await broken(cluster, body, (replica) => killHard(replica.pid), { route: '/v1/completions' });
    assert.equal(events.at(-1), '[DONE]');
    assert.equal(textOf(events), textOf(expected));
    await cluster.waitForReplicas(MODEL, 2);
  });

  test('an answer with tools merely offered is continued like any other', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    const body = ask(MODEL, `${LONG}\ntools`, { tools: TOOLS, stream_options: { include_usage: true } });
    const expected = await undisturbed(cluster, body);
    const { events } = await broken(cluster, body, (replica) => killHard(replica.pid));
    assertUnbroken(events, expected);
    assert.deepEqual(JSON.parse(events.at(-2)).usage.total_tokens, JSON.parse(expected.at(-2)).usage.total_tokens);
    await cluster.waitForReplicas(MODEL, 2);
  });

  test('two engines that end under one answer end it with an error, not a third', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 2);
    const { events } = await broken(cluster, ask(MODEL, `${LONG}\npoison`), (replica) => killHard(replica.pid), { times: 2 });
    assert.ok(!events.includes('[DONE]'));
    assert.equal(JSON.parse(events.at(-1)).error.code, 'request_crashes_engine');
    await cluster.waitForReplicas(MODEL, 2);
  });

  test('a call of a tool and an answer bound by a schema end with an error event', async (cluster) => {
    const cases = [ask(MODEL, '#fake token_ms=100 tool=f:{"a":"one two three four five six seven"}'), ask(MODEL, `${LONG}\nbound`, { response_format: { type: 'json_object' } })];
    for (const body of cases) {
      await cluster.waitForReplicas(MODEL, 2);
      const { events } = await broken(cluster, body, (replica) => killHard(replica.pid), { after: 3 });
      assert.ok(!events.includes('[DONE]'));
      const { error } = JSON.parse(events.at(-1));
      assert.equal(error.code, 'replica_failed');
      assert.match(error.message, /cannot be continued/);
    }
  });
});

withCluster('One node', { gpus: 'GTX 1080:8GiB' }, (test) => {
  test('a stream waits for its only engine to be restarted', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 1);
    const body = ask(MODEL, '#fake tokens=100 token_ms=20');
    const expected = await undisturbed(cluster, body);
    const { events } = await broken(cluster, body, (replica) => killHard(replica.pid));
    assertUnbroken(events, expected);
  });
});

const missing = engineDir ? null : 'no engine beside aiv (make build links it; or set AIV_ENGINE_DIR)';
if (missing) {
  describe('The real engine', () => it('continues an answer', { skip: missing }, () => {}));
} else {
  withCluster('The real engine', { engine: 'llama', gpus: 'GTX 1050:64MiB;GTX 1060:64MiB', args: ['--no-models'] }, (test) => {
    const body = ask('demo', 'Tell me a story about a bear named Lucy.', { temperature: 0, max_tokens: 80 });
    let expected;

    test('serves the demo model twice', async (cluster) => {
      const up = await cluster.cli('up', DEMO, '--name', 'demo', '--ctx', '512', '--slots', '2', '--replicas', '2', { timeoutMs: 140_000 });
      assert.equal(up.code, 0, up.stderr);
      await cluster.waitForReplicas('demo', 2, 120_000);
      expected = await undisturbed(cluster, body);
      assert.ok(expected.length > 20, `${expected.length} events`);
    });

    for (const after of [1, 15]) {
      test(`kill -9 of the engine after ${after} tokens: the rest is the same to the byte`, async (cluster) => {
        await cluster.waitForReplicas('demo', 2, 120_000);
        const { events } = await broken(cluster, body, (replica) => killHard(replica.pid), { after });
        assertUnbroken(events, expected);
      });
    }

    test('tools merely offered: the same, by the chat route of the other engine', async (cluster) => {
      await cluster.waitForReplicas('demo', 2, 120_000);
      const offered = { ...body, tools: TOOLS, stream_options: { include_usage: true } };
      const whole = await undisturbed(cluster, offered);
      const { events } = await broken(cluster, offered, (replica) => killHard(replica.pid), { after: 7 });
      assertUnbroken(events, whole);
      const usage = (list) => JSON.parse(list.at(-2)).usage;
      assert.equal(usage(events).completion_tokens, usage(whole).completion_tokens);
      assert.equal(usage(events).prompt_tokens, usage(whole).prompt_tokens);
    });

    test('SIGSTOP of the engine: the same', async (cluster) => {
      await cluster.waitForReplicas('demo', 2, 120_000);
      let stopped;
      try {
        const { events } = await broken(cluster, body, (replica) => {
          stopped = replica.pid;
          return stopProcess(stopped);
        });
        assertUnbroken(events, expected);
      } finally {
        if (stopped && isAlive(stopped)) process.kill(stopped, 'SIGCONT');
      }
    });

    test('a sampled answer goes on without a seam', async (cluster) => {
      await cluster.waitForReplicas('demo', 2, 120_000);
      const { events } = await broken(cluster, { ...body, temperature: 0.8, seed: 7 }, (replica) => killHard(replica.pid));
      assert.equal(events.at(-1), '[DONE]');
      assert.equal(new Set(events.slice(0, -1).map((data) => JSON.parse(data).id)).size, 1);
      assert.ok(textOf(events).length > 20);
    });
  });
}
