// The demo model that the repository ships: what a newcomer's first questions get, from the real engine.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import OpenAI from 'openai';
import { engineDir, repository } from '../lib/places.mjs';
import { withCluster } from '../lib/suite.mjs';
import { startReference } from './reference.mjs';

const model = path.join(repository, 'models/demo.gguf');
const heldOut = JSON.parse(fs.readFileSync(path.join(repository, 'tools/demo-model/heldout.json'), 'utf8')).cases;
const WANTED = 36;
// Mesa compiles the engine's shaders when a length of prompt comes for the first time, which on a busy machine takes minutes.
const PATIENCE_MS = 600_000;

const FIXED = [
  ['What is AIvailable?', 'AIvailable runs language models on the GPUs that you already have.'],
  ['What is 8 plus 6?', '8 plus 6 is 14.'],
  [
    'Tell me a story.',
    'Once there was a clever fox named Leo. One day Leo went to the river and found a blue boat. Leo did not know what to do ' +
      'with it, so Leo asked a frog. The frog had lost the blue boat and was very glad. From then on they were friends.',
  ],
];

const missing = !engineDir ? 'no engine beside aiv (make build links it; or set AIV_ENGINE_DIR)' : !fs.existsSync(model) ? 'no models/demo.gguf (make demo-model)' : null;

async function answer(client, prompt) {
  const reply = await client.chat.completions.create({ model: 'demo', messages: [{ role: 'user', content: prompt }], temperature: 0, max_tokens: 200 });
  return { text: reply.choices[0].message.content, end: reply.choices[0].finish_reason };
}

async function checkFixed(client) {
  for (const [prompt, wanted] of FIXED) {
    assert.deepEqual(await answer(client, prompt), { text: wanted, end: 'stop' });
  }
}

if (missing) {
  describe('The demo model', () => it('answers', { skip: missing }, () => {}));
} else {
  describe('The demo model on the CPU, the reference', () => {
    it('gives three known answers', { timeout: 120_000 }, async () => {
      const reference = await startReference(model);
      try {
        await checkFixed(new OpenAI({ baseURL: `${reference.url}/v1`, apiKey: 'none' }));
      } finally {
        await reference.stop();
      }
    });
  });

  withCluster('The demo model on software GPUs', { engine: 'llama', testTimeoutMs: PATIENCE_MS }, (test) => {
    test('is what `aiv dev` deploys, with two replicas on software GPUs', async (cluster) => {
      const replicas = await cluster.waitForReplicas('demo', 2);
      const devices = await cluster.items('devices');
      for (const replica of replicas) for (const { id } of replica.devices) assert.equal(devices.find((d) => d.id === id).kind, 'software');
    });

    test('gives the same three answers as on the CPU', (cluster) => checkFixed(cluster.openai({ timeout: PATIENCE_MS })));

    test(`answers at least ${WANTED} of ${heldOut.length} prompts that its training never saw`, async (cluster) => {
      const failed = [];
      const client = cluster.openai({ timeout: PATIENCE_MS });
      const left = heldOut.values();
      const ask = async () => {
        for (const { prompt, expect } of left) {
          const got = await answer(client, prompt);
          if (got.end !== 'stop' || !new RegExp(expect, 's').test(got.text)) failed.push(`${prompt} -> ${got.text}`);
        }
      };
      await Promise.all([ask(), ask()]); // one for each replica
      assert.ok(heldOut.length - failed.length >= WANTED, failed.join('\n'));
    });
  });
}
