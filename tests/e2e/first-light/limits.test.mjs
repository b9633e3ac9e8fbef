// Limits of keys and teams, what is counted as used, and fairness between keys (fake engine, real processes).
import assert from 'node:assert/strict';
import { readEvents } from '../lib/sse.mjs';
import { withCluster } from '../lib/suite.mjs';
import { sleep, waitFor } from '../lib/wait.mjs';

const MODEL = 'fake-small';
const chat = (content, more = {}) => ({ model: MODEL, messages: [{ role: 'user', content }], ...more });
const post = (cluster, key, body, options = {}) => cluster.fetch('/v1/chat/completions', { method: 'POST', body, key, ...options });

// Makes a key on the command line; it works as soon as the gateway has the next table.
async function makeKey(cluster, ...flags) {
  const made = await cluster.cli('key', 'create', ...flags, '--json');
  assert.equal(made.code, 0, made.stderr);
  const key = JSON.parse(made.stdout);
  await waitFor('the key is known', async () => (await cluster.fetch('/v1/models', { key: key.key })).status === 200);
  return key;
}

async function assertLimited(response, word) {
  assert.equal(response.status, 429);
  const after = Number(response.headers.get('retry-after'));
  assert.ok(after >= 1 && after <= 60, `retry-after ${after}`);
  const { error } = await response.json();
  assert.equal(error.type, 'rate_limit_error');
  assert.equal(error.code, 'rate_limit_exceeded');
  assert.match(error.message, word);
}

const rows = async (cluster, id, options = {}) => (await cluster.api('usage', options)).items.filter((row) => row.key === id);
const killGateway = async (cluster) => {
  assert.equal((await cluster.cli('dev', 'kill', 'gateway', '--data', cluster.dir)).code, 0);
  await waitFor('it serves again', async () => (await post(cluster, cluster.key, chat('#fake tokens=1'))).status === 200, { timeoutMs: 15_000 });
};

withCluster('Limits', { gpus: 'GTX 1080:8GiB' }, (test) => {
  test('requests per minute: a burst, then 429 with what is left and when', async (cluster) => {
    await cluster.waitForReplicas(MODEL, 1);
    const { key } = await makeKey(cluster, 'student', '--rpm', '3');
    for (const left of [2, 1, 0]) {
      const response = await post(cluster, key, chat('#fake tokens=2'));
      assert.equal(response.status, 200);
      assert.equal(response.headers.get('x-ratelimit-limit-requests'), '3');
      assert.equal(response.headers.get('x-ratelimit-remaining-requests'), String(left));
      assert.match(response.headers.get('x-ratelimit-reset-requests'), /^\d+s$/);
      await response.text();
    }
    await assertLimited(await post(cluster, key, chat('#fake tokens=2')), /3 requests per minute of this key/);
    await assertLimited(await post(cluster, key, chat('#fake tokens=2', { stream: true })), /requests per minute/);
    assert.equal((await post(cluster, cluster.key, chat('#fake tokens=2'))).status, 200, 'other keys are not limited');
  });

  test('tokens per minute: reserved at the start, settled by what was used, also when the client leaves', async (cluster) => {
    const { key } = await makeKey(cluster, 'tokens', '--tpm', '1000');
    const remaining = async () => {
      const response = await post(cluster, key, chat('#fake tokens=1', { max_tokens: 1 }));
      await response.text();
      return response.status === 200 ? Number(response.headers.get('x-ratelimit-remaining-tokens')) : null;
    };
    const running = post(cluster, key, chat('#fake tokens=5 first_ms=1500', { max_tokens: 900 }));
    await sleep(300);
    await assertLimited(await post(cluster, key, chat('#fake tokens=5', { max_tokens: 900 })), /1000 tokens per minute/);
    const answer = await (await running).json();
    assert.equal(answer.usage.completion_tokens, 5);
    const settled = await waitFor('the rest is given back', async () => {
      const left = await remaining();
      return left > 850 ? left : null;
    });
    const abort = new AbortController();
    const leaving = post(cluster, key, chat('#fake tokens=800 token_ms=20', { max_tokens: 800, stream: true }), { signal: abort.signal });
    const response = await leaving;
    await response.body.getReader().read();
    abort.abort();
    await waitFor('what the client did not wait for is given back', async () => (await remaining()) > settled - 200);
  });

  test('so many requests at once, and a place is free again when one leaves', async (cluster) => {
    const { key } = await makeKey(cluster, 'parallel', '--concurrency', '2');
    const aborts = [new AbortController(), new AbortController()];
    for (const { signal } of aborts) await post(cluster, key, chat('#fake tokens=1000 token_ms=20', { stream: true }), { signal });
    await assertLimited(await post(cluster, key, chat('#fake tokens=1')), /2 requests at once/);
    aborts[0].abort();
    await waitFor('a place is free', async () => (await post(cluster, key, chat('#fake tokens=1'))).status === 200, { timeoutMs: 2000 });
    aborts[1].abort();
  });

  test('tokens per day are remembered when the gateway is killed', async (cluster) => {
    const { key, id } = await makeKey(cluster, 'daily', '--tpd', '100');
    assert.equal((await post(cluster, key, chat('#fake tokens=60', { max_tokens: 60 }))).status, 200);
    await assertLimited(await post(cluster, key, chat('#fake tokens=60', { max_tokens: 60 })), /100 tokens per day/);
    const before = await waitFor('it is counted', async () => (await rows(cluster, id))[0]);
    await sleep(2200); // what happened in the last second before a kill may be lost
    await killGateway(cluster);
    assert.deepEqual((await rows(cluster, id))[0], before);
    await assertLimited(await post(cluster, key, chat('#fake tokens=60', { max_tokens: 60 })), /tokens per day/);
  });

  test('a team shares its limits, which can be changed, and its use is told apart', async (cluster) => {
    assert.equal((await cluster.cli('team', 'create', 'robots', '--rpm', '2')).code, 0);
    const a = await makeKey(cluster, 'a', '--team', 'robots');
    const b = await makeKey(cluster, 'b', '--team', 'robots', '--team-rpm', '2');
    assert.equal((await post(cluster, a.key, chat('#fake tokens=1'))).status, 200);
    assert.equal((await post(cluster, b.key, chat('#fake tokens=1'))).status, 200);
    await assertLimited(await post(cluster, a.key, chat('#fake tokens=1')), /the team 'robots'/);
    await assertLimited(await post(cluster, b.key, chat('#fake tokens=1')), /the team 'robots'/);
    assert.equal((await cluster.cli('team', 'set', 'robots', '--rpm', '600', '--tpd', '100000')).code, 0);
    await waitFor('the raised limit holds', async () => (await post(cluster, b.key, chat('#fake tokens=1'))).status === 200);
    assert.equal((await cluster.cli('team', 'rm', 'robots')).code, 1); // it has keys
    assert.equal((await cluster.cli('key', 'set', b.id, '--team', '')).code, 0);
    assert.deepEqual((await cluster.api('teams')).items.map((t) => [t.name, t.keys, t.limits.requests_per_min]), [['robots', 1, 600]]);
    const sums = async () => (await cluster.api('usage?by=team')).items.find((row) => row.team === 'robots');
    const counted = await waitFor('its requests are counted', async () => ((await sums())?.requests >= 3 ? sums() : null));
    assert.equal(counted.generated_tokens, counted.requests);
    assert.match((await cluster.cli('usage', '--by', 'team')).stdout, /TEAM.*\n(.*\n)*.*robots +3/);
  });

  test('a key that expires stops working; one for other models does not see this one', async (cluster) => {
    const made = await cluster.api('keys', { method: 'POST', body: { name: 'short', expires_in_s: 3 } });
    await waitFor('it works', async () => (await post(cluster, made.key, chat('#fake tokens=1'))).status === 200);
    await waitFor('it has expired', async () => (await post(cluster, made.key, chat('#fake tokens=1'))).status === 401, { timeoutMs: 6000 });
    const { key } = await makeKey(cluster, 'other', '--models', 'qwen*');
    assert.equal((await post(cluster, key, chat('#fake tokens=1'))).status, 404);
    assert.equal((await cluster.cli('key', 'create', 'bad', '--expires', 'soon')).code, 2);
  });

  test('usage is kept per key, user and model, and a user sees only its own', async (cluster) => {
    const { key, id } = await makeKey(cluster, 'counted');
    for (const [user, times] of [['ann', 2], ['bob', 1]])
      for (let i = 0; i < times; ++i) assert.equal((await post(cluster, key, chat('#fake tokens=10', { user }))).status, 200);
    const headers = { 'x-openwebui-user-id': 'carol' };
    assert.equal((await readEvents(await post(cluster, key, chat('#fake tokens=10', { stream: true }), { headers }))).events.at(-1), '[DONE]');
    const all = await waitFor('all is counted', async () => {
      const found = await rows(cluster, id);
      return found.length === 3 ? found : null;
    });
    assert.deepEqual(all.map((r) => [r.user, r.model, r.requests, r.generated_tokens]).sort(), [
      ['ann', MODEL, 2, 20],
      ['bob', MODEL, 1, 10],
      ['carol', MODEL, 1, 10],
    ]);
    assert.ok(all.every((r) => r.prompt_tokens > 0 && r.name === 'counted'));
    const own = (await cluster.api('usage', { key })).items;
    assert.ok(own.length === 3 && own.every((r) => r.key === id));
    const table = await cluster.cli('usage');
    assert.equal(table.code, 0, table.stderr);
    assert.match(table.stdout, /carol/);
    assert.equal((await cluster.fetch('/aiv/v1/usage?days=0')).status, 400);
  });

  test('one student with 200 requests at once does not starve another', async (cluster) => {
    const greedy = await makeKey(cluster, 'greedy');
    const modest = await makeKey(cluster, 'modest');
    const work = '#fake tokens=20 token_ms=10';
    const flood = Array.from({ length: 200 }, () => post(cluster, greedy.key, chat(work)).then((r) => r.text().then(() => r.status)));
    await waitFor('the queue is full', async () => /requests_waiting\{[^}]*\} (1[0-9]|[2-9][0-9])/.test(await (await cluster.fetch('/metrics')).text()));
    const times = [];
    for (let i = 0; i < 5; ++i) {
      const began = Date.now();
      const response = await post(cluster, modest.key, chat(work));
      assert.equal(response.status, 200, `request ${i} beside the flood`);
      await response.text();
      times.push(Date.now() - began);
    }
    const statuses = await Promise.all(flood);
    const served = statuses.filter((status) => status === 200).length;
    // 2 slots and 16 places in the queue, of which the other's five requests may each take one.
    assert.ok(served >= 13, `${served} of the flood were served`);
    assert.ok(statuses.every((status) => status === 200 || status === 503), [...new Set(statuses)].join());
    assert.ok(Math.max(...times) < 3000, `beside the flood: ${times.join(', ')} ms`);
  });
});
