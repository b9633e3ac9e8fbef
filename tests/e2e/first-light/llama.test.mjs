// The real engine on software GPUs: the same path as on a card, with llama-server and the Vulkan backend.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { aivBin, engineDir, testData } from '../lib/places.mjs';
import { isAlive, killHard } from '../lib/processes.mjs';
import { readEvents, textOf } from '../lib/sse.mjs';
import { withCluster } from '../lib/suite.mjs';
import { waitFor } from '../lib/wait.mjs';

const stories = testData('models/stories260K.gguf');
const MiB = 1024 * 1024;
// Random weights of the tool's usual shape: nonsense, but always the same at temperature 0. Two layers of two key and
// two value heads of 32 f16 numbers: 512 bytes of cache a token.
const SHAPE = ['--ctx-train', '300000'];
const CACHE_BYTES_PER_TOKEN = 512;
// A deployment's ctx is that of one slot.
const BIG_CTX = 4096;
const SLOTS = 2;

const makeModel = aivBin && path.join(path.dirname(aivBin), 'aiv-make-model');
const missing = !engineDir
  ? 'no engine beside aiv (make build links it; or set AIV_ENGINE_DIR)'
  : !makeModel || !fs.existsSync(makeModel)
    ? 'aiv-make-model is not built'
    : null;

if (missing) {
  describe('The real engine on software GPUs', () => it('chats', { skip: missing }, () => {}));
} else {
  const models = fs.mkdtempSync(path.join(os.tmpdir(), 'aivm-'));
  const [big, other] = ['big', 'other'].map((name, seed) => {
    const file = path.join(models, `${name}.gguf`);
    execFileSync(makeModel, [file, '--name', name, '--seed', String(seed + 1), ...SHAPE]);
    return file;
  });
  after(() => fs.rmSync(models, { recursive: true, force: true }));

  withCluster('The real engine on software GPUs', { engine: 'llama', gpus: 'GTX 1050:64MiB,GTX 1060:96MiB;RTX 3060:128MiB', args: ['--no-models'] }, (test) => {
    test('finds three GPUs of different sizes, labelled as software', async (cluster) => {
      const devices = await cluster.items('devices');
      assert.deepEqual(devices.map((d) => [d.id, d.kind, d.vram_bytes / MiB]).sort(), [['n1/0', 'software', 64], ['n1/1', 'software', 96], ['n2/0', 'software', 128]]);
    });

    test('places two models by their VRAM, and both answer', async (cluster) => {
      for (const [file, name, ctx] of [[big, 'big', BIG_CTX], [other, 'other', 512]]) {
        const up = await cluster.cli('up', file, '--name', name, '--ctx', String(ctx), '--slots', String(SLOTS), { timeoutMs: 140_000 });
        assert.equal(up.code, 0, up.stderr);
      }
      const replicas = (await cluster.replicas()).filter((r) => r.state === 'ready');
      assert.deepEqual(replicas.map((r) => r.deployment).sort(), ['big', 'other']);
      const devices = await waitFor('the devices are measured', async () => {
        const items = await cluster.items('devices');
        return replicas.flatMap((r) => r.devices).every(({ id, bytes }) => {
          const device = items.find((d) => d.id === id);
          return device.free_bytes <= device.vram_bytes - bytes / 2;
        })
          ? items
          : null;
      });
      for (const { id, devices: held } of replicas)
        for (const { id: device, bytes } of held) assert.ok(bytes > 0 && bytes <= devices.find((d) => d.id === device).vram_bytes, `${id}: ${bytes} on ${device}`);
      const first = replicas.find((r) => r.deployment === 'big');
      assert.ok(first.devices.reduce((sum, d) => sum + d.bytes, 0) >= BIG_CTX * SLOTS * CACHE_BYTES_PER_TOKEN);
      assert.ok(first.devices.length > 1 || first.devices[0].id !== 'n1/0', 'it does not fit on the smallest alone');

      const client = cluster.openai();
      for (const model of ['big', 'other']) {
        const ask = { model, prompt: 'Once upon a time', max_tokens: 20, temperature: 0 };
        const whole = await client.completions.create(ask);
        assert.ok(whole.choices[0].text.length > 0);
        let streamed = '';
        for await (const chunk of await client.completions.create({ ...ask, stream: true })) streamed += chunk.choices[0]?.text ?? '';
        assert.equal(streamed, whole.choices[0].text);
      }
    });

    test('a trained model says what it says elsewhere', { skip: stories ? false : 'no models/stories260K.gguf in the test data (AIV_TEST_DATA)' }, async (cluster) => {
      const up = await cluster.cli('up', stories, '--name', 'stories', '--ctx', '512', '--slots', '1', { timeoutMs: 140_000 });
      assert.equal(up.code, 0, up.stderr);
      const answer = await cluster.openai().completions.create({ model: 'stories', prompt: 'Once upon a time', max_tokens: 20, temperature: 0 });
      assert.match(answer.choices[0].text, /there was a little girl named Lily/);
      assert.equal((await cluster.cli('down', 'stories')).code, 0);
    });

    test('streams a chat through the official client', async (cluster) => {
      let text = '';
      let finish = null;
      for await (const chunk of await cluster.openai().chat.completions.create({ model: 'big', messages: [{ role: 'user', content: 'Once upon' }], max_tokens: 16, temperature: 0, stream: true })) {
        assert.equal(chunk.model, 'big');
        text += chunk.choices[0]?.delta?.content ?? '';
        finish = chunk.choices[0]?.finish_reason ?? finish;
      }
      assert.ok(text.length > 10);
      assert.equal(finish, 'length');
    });

    test('frees the slot within a second when the client leaves', async (cluster) => {
      const abort = new AbortController();
      const body = { model: 'big', stream: true, messages: [{ role: 'user', content: 'Tell me a long story.' }], max_tokens: 3000, temperature: 0 };
      const response = await cluster.fetch('/v1/chat/completions', { method: 'POST', body, signal: abort.signal });
      assert.equal(response.status, 200);
      const busy = async () => (await cluster.replicas('big')).reduce((sum, r) => sum + r.slots_busy, 0);
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

    // One with log probabilities: a plain one would be continued (resume.test.mjs).
    test('a stream that cannot be continued ends with an error event and no end mark when its engine dies', async (cluster) => {
      const replica = (await cluster.replicas('big')).find((r) => r.state === 'ready');
      const body = { model: 'big', stream: true, messages: [{ role: 'user', content: 'Tell me a long story.' }], max_tokens: 3000, temperature: 0, logprobs: true };
      const response = await cluster.fetch('/v1/chat/completions', { method: 'POST', body });
      const part = await readEvents(response, { until: (data, events) => events.length >= 5 });
      assert.ok(textOf(part.events).length > 0);
      await killHard(replica.pid);
      const rest = await readEvents({ body: { getReader: () => part.reader } });
      assert.ok(!rest.events.includes('[DONE]'));
      assert.ok(JSON.parse(rest.events.at(-1)).error, rest.events.at(-1));
      await waitFor('it is ready again', async () => (await cluster.replicas('big')).find((r) => r.state === 'ready' && r.pid !== replica.pid), { timeoutMs: 60_000 });
    });

    test('kill -9 of the agent: engines go on with the same pids', async (cluster) => {
      const ready = async () => (await cluster.replicas()).filter((r) => r.state === 'ready').map((r) => r.pid).sort();
      await waitFor('what was disturbed before is ready again', async () => (await ready()).length >= 2, { timeoutMs: 60_000 });
      const before = await ready();
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
      const result = await cluster.cli('up', big, '--name', 'huge', '--ctx', '250000', '--slots', '16');
      assert.equal(result.code, 4, result.stderr);
      assert.match(result.stderr, /[GM]iB.*[GM]iB/s);
      await waitFor('the others serve on', async () => (await cluster.replicas()).filter((r) => r.state === 'ready').length === 2);
    });

    test('a truncated or broken GGUF: exit 1, naming the field, before a process starts', async (cluster) => {
      const bytes = fs.readFileSync(big);
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
