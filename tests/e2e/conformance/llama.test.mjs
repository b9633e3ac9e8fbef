// The official clients against the real engine with the demo model on software GPUs: the same question in each family's
// words gets the same answer, and what it cost is the same in each.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { HumanMessage } from '@langchain/core/messages';
import { generateText } from 'ai';
import { engineDir, repository } from '../lib/places.mjs';
import { withCluster } from '../lib/suite.mjs';
import { anthropic, collect, langchain, ollama, vercel } from './clients.mjs';

const model = 'demo';
const QUESTION = 'Say hello';
const TOKENS = 8;
const messages = [{ role: 'user', content: QUESTION }];

if (!engineDir) {
  describe('The official clients on the real engine', () => it('chat', { skip: 'no engine beside aiv (make build links it; or set AIV_ENGINE_DIR)' }, () => {}));
} else {
  withCluster('The official clients on the real engine', { engine: 'llama', gpus: 'A:256MiB' }, (test) => {
    let text;
    let usage;

    test('openai: a chat, whole and streamed, completions, log probabilities and a JSON schema', async (cluster) => {
      const client = cluster.openai();
      const request = { model, messages, max_tokens: TOKENS, temperature: 0 };
      const whole = await client.chat.completions.create({ ...request, logprobs: true, top_logprobs: 2 });
      text = whole.choices[0].message.content;
      usage = whole.usage;
      assert.ok(text.length > 0);
      assert.ok(whole.choices[0].logprobs.content.length > 0);
      assert.equal(whole.choices[0].logprobs.content[0].top_logprobs.length, 2);
      const chunks = await collect(await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } }));
      assert.equal(chunks.map((c) => c.choices[0]?.delta.content ?? '').join(''), text);
      assert.equal(chunks.at(-1).usage.completion_tokens, usage.completion_tokens);
      // Every answer that the schema allows is short, so that a model that writes nonsense must end with a whole one.
      const schema = { type: 'object', properties: { ok: { type: 'boolean' }, colour: { enum: ['red', 'green'] } }, required: ['ok', 'colour'], additionalProperties: false };
      const bound = { model, messages, max_tokens: 200, temperature: 0, response_format: { type: 'json_schema', json_schema: { name: 'a', schema, strict: true } } };
      const json = await client.chat.completions.create(bound);
      assert.equal(json.choices[0].finish_reason, 'stop', json.choices[0].message.content);
      const { ok, colour, ...more } = JSON.parse(json.choices[0].message.content);
      assert.equal(typeof ok, 'boolean');
      assert.ok(['red', 'green'].includes(colour), colour);
      assert.deepEqual(more, {});
      const pieces = await collect(await client.chat.completions.create({ ...bound, stream: true }));
      assert.equal(pieces.map((c) => c.choices[0]?.delta.content ?? '').join(''), json.choices[0].message.content);
      const plain = await client.completions.create({ model, prompt: 'The', max_tokens: 3, temperature: 0 });
      assert.equal(plain.usage.completion_tokens, 3);
    });

    test('ollama’s lists tell the file’s true size, digest, architecture and parameters', async (cluster) => {
      const file = fs.readFileSync(path.join(repository, 'models/demo.gguf'));
      const client = ollama(cluster);
      const entry = (await client.list()).models.find((m) => m.name === `${model}:latest`);
      assert.equal(entry.size, file.length);
      assert.equal(entry.digest, crypto.createHash('sha256').update(file).digest('hex'));
      const { items } = await cluster.api('models');
      const known = items.find((m) => m.digest.endsWith(entry.digest));
      assert.equal(entry.details.family, known.architecture);
      assert.equal(entry.details.quantization_level, known.quantisation);
      assert.match(entry.details.parameter_size, /^[\d.]+[KMB]?$/);
      const shown = await client.show({ model });
      assert.equal(shown.model_info['general.architecture'], known.architecture);
      assert.equal(shown.model_info['general.parameter_count'], known.parameters);
      assert.ok((await client.ps()).models.find((m) => m.name === `${model}:latest`).size_vram > 0);
    });

    test('every family gives that answer, and the same count of tokens', async (cluster) => {
      const anthropicClient = anthropic(cluster);
      const message = await anthropicClient.messages.stream({ model, max_tokens: TOKENS, temperature: 0, messages }).finalMessage();
      assert.equal(message.content[0].text, text);
      assert.equal(message.usage.input_tokens + message.usage.cache_read_input_tokens, usage.prompt_tokens);
      assert.equal(message.usage.output_tokens, usage.completion_tokens);
      const response = await cluster.openai().responses.create({ model, input: QUESTION, max_output_tokens: TOKENS, temperature: 0 });
      assert.equal(response.output_text, text);
      assert.equal(response.usage.output_tokens, usage.completion_tokens);
      const parts = await collect(await ollama(cluster).chat({ model, messages, stream: true, options: { temperature: 0, num_predict: TOKENS } }));
      assert.equal(parts.map((p) => p.message.content).join(''), text);
      assert.equal(parts.at(-1).eval_count, usage.completion_tokens);
      assert.equal(parts.at(-1).prompt_eval_count, usage.prompt_tokens);
      const { text: fromAi } = await generateText({ model: vercel(cluster)(model), prompt: QUESTION, temperature: 0, maxOutputTokens: TOKENS, maxRetries: 0 });
      assert.equal(fromAi, text);
      const fromLangchain = await langchain(cluster, { model, temperature: 0, maxTokens: TOKENS }).invoke([new HumanMessage(QUESTION)]);
      assert.equal(fromLangchain.content, text);
    });

    test('anthropic: tokens are counted as the engine counts them, and a prefilled answer goes on', async (cluster) => {
      const client = anthropic(cluster);
      assert.equal((await client.messages.countTokens({ model, messages })).input_tokens, usage.prompt_tokens);
      const prefix = text.slice(0, 5);
      const rest = await client.messages.create({ model, max_tokens: TOKENS, temperature: 0, messages: [...messages, { role: 'assistant', content: prefix }] });
      assert.ok(!rest.content.length || !rest.content[0].text.startsWith(prefix));
    });

    test('an image for a model without eyes, and a prompt beyond the context, are the request’s fault', async (cluster) => {
      const client = cluster.openai();
      const image = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=' } }] }];
      for (let i = 0; i < 2; ++i) {
        const refused = await client.chat.completions.create({ model, messages: image }).catch((e) => e);
        assert.equal(refused.status, 400);
        assert.match(refused.message, /image input is not supported/);
      }
      const data = 'iVBORw0KGgo=';
      const source = { type: 'base64', media_type: 'image/png', data };
      const others = {
        responses: () => client.responses.create({ model, input: [{ role: 'user', content: [{ type: 'input_image', image_url: `data:image/png;base64,${data}` }] }] }),
        anthropic: () => anthropic(cluster).messages.create({ model, max_tokens: 4, messages: [{ role: 'user', content: [{ type: 'image', source }] }] }),
        ollama: () => ollama(cluster).chat({ model, messages: [{ role: 'user', content: 'look', images: [data] }] }),
      };
      for (const [family, ask] of Object.entries(others)) {
        const refused = await ask().then(() => ({ message: 'an answer' }), (error) => error);
        assert.equal(refused.status ?? refused.status_code, 400, `${family}: ${refused.message}`);
        assert.match(refused.message, /image input is not supported/, family);
      }
      const long = await client.chat.completions.create({ model, messages: [{ role: 'user', content: 'word '.repeat(3000) }] }).catch((e) => e);
      assert.deepEqual([long.status, long.code], [400, 'context_length_exceeded']);
      // No replica was blamed for it.
      const after = await client.chat.completions.create({ model, messages, max_tokens: 1 });
      assert.equal(after.usage.completion_tokens, 1);
    });

    test('the same model serves embeddings as a deployment of its own kind', async (cluster) => {
      const up = await cluster.cli('up', path.join(repository, 'models/demo.gguf'), '--name', 'vectors', '--kind', 'embedding', { timeoutMs: 120_000 });
      assert.equal(up.code, 0, up.stderr);
      const client = cluster.openai();
      const { data } = await client.embeddings.create({ model: 'vectors', input: ['good morning', 'good morning', 'a red car'] });
      const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
      assert.ok(Math.abs(dot(data[0].embedding, data[0].embedding) - 1) < 1e-3);
      assert.ok(dot(data[0].embedding, data[1].embedding) > 0.999);
      assert.ok(dot(data[0].embedding, data[2].embedding) < 0.999);
      const floats = await client.embeddings.create({ model: 'vectors', input: 'good morning', encoding_format: 'float' });
      floats.data[0].embedding.forEach((x, i) => assert.ok(Math.abs(x - data[0].embedding[i]) < 1e-3));
      const { embeddings } = await ollama(cluster).embed({ model: 'vectors', input: 'good morning' });
      assert.equal(embeddings[0].length, data[0].embedding.length);
      const long = await client.embeddings.create({ model: 'vectors', input: 'word '.repeat(6000) }).catch((e) => e);
      assert.deepEqual([long.status, long.code], [400, 'context_length_exceeded']);
    });
  });
}
