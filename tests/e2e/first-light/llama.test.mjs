// The real engine on software GPUs: the same path as on a card, with llama-server and the Vulkan backend.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { engineDir, testData } from '../lib/places.mjs';
import { isAlive, killHard } from '../lib/processes.mjs';
import { readEvents, textOf } from '../lib/sse.mjs';
import { withCluster } from '../lib/suite.mjs';
import { waitFor } from '../lib/wait.mjs';

const model = testData('models/stories260K.gguf');
// 640 bytes of cache a token: five layers of 32 f16 values, K and V.
const CACHE_BYTES_PER_TOKEN = 640;
const MiB = 1024 * 1024;

const missing = !engineDir ? 'no engine beside aiv (make build links it; or set AIV_ENGINE_DIR)' : !model ? 'no models/stories260K.gguf in the test data (AIV_TEST_DATA)' : null;

if (missing) {
  describe('The real engine on software GPUs', () => it('chats', { skip: missing }, () => {}));
} else {
  withCluster('The real engine on software GPUs', { engine: 'llama', gpus: 'GTX 1050:128MiB,GTX 1060:256MiB;RTX 3060:384MiB', args: ['--no-models'] }, (test) => {
    test('finds three GPUs of different sizes, labelled as software', async (cluster) => {
      const devices = await cluster.items('devices');
      assert.deepEqual(devices.map((d) => [d.id, d.kind, d.vram_bytes / MiB]).sort(), [['n1/0', 'software', 128], ['n1/1', 'software', 256], ['n2/0', 'software', 384]]);
    });

    test('places two models by their VRAM, and both answer', async (cluster) => {
      const copy = path.join(cluster.dir, 'other.gguf');
      fs.copyFileSync(model, copy);
      for (const [file, name, ctx] of [[model, 'stories', 262_144], [copy, 'other', 4096]]) {
        const up = await cluster.cli('up', file, '--name', name, '--ctx', String(ctx), '--slots', '2', { timeoutMs: 120_000 });
        assert.equal(up.code, 0, up.stderr);
      }
      const replicas = (await cluster.replicas()).filter((r) => r.state === 'ready');
      assert.deepEqual(replicas.map((r) => r.deployment).sort(), ['other', 'stories']);
      const devices = await cluster.items('devices');
      for (const replica of replicas) {
        for (const { id, bytes } of replica.devices) {
          const device = devices.find((d) => d.id === id);
          assert.ok(bytes > 0 && bytes <= device.vram_bytes, `${replica.id}: ${bytes} on ${id}`);
          assert.ok(device.free_bytes < device.vram_bytes, `${id} has something on it`);
        }
      }
      const big = replicas.find((r) => r.deployment === 'stories');
      const held = big.devices.reduce((sum, d) => sum + d.bytes, 0);
      assert.ok(held >= 262_144 * CACHE_BYTES_PER_TOKEN, `${held} bytes`);
      assert.ok(big.devices.every((d) => d.id !== 'n1/0'), 'it does not fit on the smallest');

      const client = cluster.openai();
      const whole = await client.completions.create({ model: 'stories', prompt: 'Once upon a time', max_tokens: 20, temperature: 0 });
      assert.match(whole.choices[0].text, /there was a little girl named Lily/);
      let streamed = '';
      for await (const chunk of await client.completions.create({ model: 'other', prompt: 'Once upon a time', max_tokens: 20, temperature: 0, stream: true })) streamed += chunk.choices[0]?.text ?? '';
      assert.equal(streamed, whole.choices[0].text);
    });

    test('streams a chat through the official client', async (cluster) => {
      let text = '';
      let finish = null;
      for await (const chunk of await cluster.openai().chat.completions.create({ model: 'stories', messages: [{ role: 'user', content: 'Once upon' }], max_tokens: 16, temperature: 0, stream: true })) {
        assert.equal(chunk.model, 'stories');
        text += chunk.choices[0]?.delta?.content ?? '';
        finish = chunk.choices[0]?.finish_reason ?? finish;
      }
      assert.ok(text.length > 10);
      assert.equal(finish, 'length');
    });

    test('frees the slot within a second when the client leaves', async (cluster) => {
      const abort = new AbortController();
      const body = { model: 'stories', stream: true, messages: [{ role: 'user', content: 'Tell me a long story.' }], max_tokens: 100_000, ignore_eos: true };
      const response = await cluster.fetch('/v1/chat/completions', { method: 'POST', body, signal: abort.signal });
      assert.equal(response.status, 200);
      const busy = async () => (await cluster.replicas('stories')).reduce((sum, r) => sum + r.slots_busy, 0);
      await waitFor('the slot is busy', async () => (await busy()) === 1);
      const left = Date.now();
      abort.abort();
      await waitFor('the slot is free', async () => (await busy()) === 0, { timeoutMs: 10_000, everyMs: 10 });
      assert.ok(Date.now() - left < 1000, `free after ${Date.now() - left} ms`);
    });

    test('kill -9 of the engine: its VRAM is free, it comes back and answers the same', async (cluster) => {
      const ask = async () => (await cluster.openai().completions.create({ model: 'other', prompt: 'Once upon a time', max_tokens: 12, temperature: 0 })).choices[0].text;
      const before = await ask();
      const replica = (await cluster.replicas('other')).find((r) => r.state === 'ready');
      await killHard(replica.pid);
      await waitFor('a new process is ready', async () => (await cluster.replicas('other')).find((r) => r.state === 'ready' && r.pid !== replica.pid), { timeoutMs: 60_000 });
      assert.equal(await waitFor('it answers', ask), before);
    });

    test('a stream whose engine dies ends with an error event and no end mark', async (cluster) => {
      const replica = (await cluster.replicas('stories')).find((r) => r.state === 'ready');
      const body = { model: 'stories', stream: true, messages: [{ role: 'user', content: 'Tell me a long story.' }], max_tokens: 100_000, ignore_eos: true };
      const response = await cluster.fetch('/v1/chat/completions', { method: 'POST', body });
      const part = await readEvents(response, { until: (data, events) => events.length >= 5 });
      assert.ok(textOf(part.events).length > 0);
      await killHard(replica.pid);
      const rest = await readEvents({ body: { getReader: () => part.reader } });
      assert.ok(!rest.events.includes('[DONE]'));
      assert.ok(JSON.parse(rest.events.at(-1)).error, rest.events.at(-1));
      await waitFor('it is ready again', async () => (await cluster.replicas('stories')).find((r) => r.state === 'ready' && r.pid !== replica.pid), { timeoutMs: 60_000 });
    });

    test('kill -9 of the agent: engines go on with the same pids', async (cluster) => {
      const before = (await cluster.replicas()).filter((r) => r.state === 'ready').map((r) => r.pid).sort();
      for (const node of ['n1', 'n2']) {
        await killHard(cluster.agentPid(node));
        const back = await waitFor('the agent is back', () => cluster.agentPid(node), { timeoutMs: 1500 }).catch(() => null);
        if (!back) assert.equal((await cluster.cli('dev', 'start', node, '--data', cluster.dir)).code, 0);
      }
      await waitFor('both nodes are ready', async () => (await cluster.items('nodes')).every((n) => n.state === 'ready'), { timeoutMs: 20_000 });
      await waitFor('the same engines serve', async () => JSON.stringify((await cluster.replicas()).filter((r) => r.state === 'ready').map((r) => r.pid).sort()) === JSON.stringify(before), { timeoutMs: 20_000 });
      assert.ok(before.every(isAlive));
    });

    test('a model that fits nowhere: exit 4 with the figures, and nothing else is disturbed', async (cluster) => {
      const result = await cluster.cli('up', model, '--name', 'huge', '--ctx', '4000000');
      assert.equal(result.code, 4, result.stderr);
      assert.match(result.stderr, /[GM]iB.*[GM]iB/s);
      assert.equal((await cluster.replicas()).filter((r) => r.state === 'ready').length, 2);
    });

    test('a truncated or broken GGUF: exit 1, naming the field, before a process starts', async (cluster) => {
      const bytes = fs.readFileSync(model);
      const broken = path.join(cluster.dir, 'broken.gguf');
      for (const [content, name] of [[bytes.subarray(0, 300), /offset|header|kv|metadata|truncated/i], [bytes.subarray(0, bytes.length - 5000), /tensor|offset|short|truncated/i], [Buffer.from('not a model at all'), /GGUF|magic/i], [Buffer.alloc(0), /empty|GGUF|magic|truncated|ends/i]]) {
        fs.writeFileSync(broken, content);
        const result = await cluster.cli('up', broken, '--name', 'broken');
        assert.equal(result.code, 1, `${result.code} ${result.stderr}`);
        assert.match(result.stderr, name);
      }
      assert.deepEqual(await cluster.replicas('broken'), []);
    });
  });
}
