// What each official client does with our answers, on the fake engine: its answers are known, and it breaks on request.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import { HumanMessage } from '@langchain/core/messages';
import { embedMany, generateText, jsonSchema, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { withCluster } from '../lib/suite.mjs';
import { anthropic, collect, langchain, langchainEmbeddings, ollama, vercel } from './clients.mjs';

const say = (text) => `#fake say=${text}`;
const SAID = 'the quick brown fox';
const CALL = '#fake tool=get_weather:{"city":"Athens"}';
const BROKEN = '#fake tokens=30 die_at=8';
const user = (content) => [{ role: 'user', content }];
const PARAMETERS = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const model = 'fake-small';
const openaiTools = [{ type: 'function', function: { name: 'get_weather', parameters: PARAMETERS } }];

withCluster('The official clients on the fake engine', { engine: 'fake', gpus: 'A:2GiB;B:2GiB' }, (test) => {
  test('has a chat model, one for embeddings with an alias, and one for reranking', async (cluster) => {
    for (const args of [['fake-embed', '--alias', 'embed:small'], ['fake:fake-rank?kind=rerank', '--name', 'rank']]) {
      const up = await cluster.cli('up', ...args);
      assert.equal(up.code, 0, up.stderr);
    }
  });

  // ---- openai

  test('openai: a chat, whole and streamed, with usage only when asked for', async (cluster) => {
    const client = cluster.openai();
    const whole = await client.chat.completions.create({ model, messages: user(say(SAID)) });
    assert.equal(whole.choices[0].message.content.trim(), SAID);
    assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
    const chunks = await collect(await client.chat.completions.create({ model, messages: user(say(SAID)), stream: true, stream_options: { include_usage: true } }));
    assert.equal(chunks.map((c) => c.choices[0]?.delta.content ?? '').join('').trim(), SAID);
    assert.equal(new Set(chunks.map((c) => c.id)).size, 1);
    assert.equal(chunks.filter((c) => c.choices[0]?.finish_reason).length, 1);
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.equal(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
    const without = await collect(await client.chat.completions.create({ model, messages: user(say(SAID)), stream: true }));
    assert.ok(without.every((c) => !c.usage));
  });

  test('openai: a call of a tool, whole and streamed', async (cluster) => {
    const client = cluster.openai();
    const whole = await client.chat.completions.create({ model, messages: user(CALL), tools: openaiTools });
    assert.equal(whole.choices[0].finish_reason, 'tool_calls');
    assert.deepEqual(JSON.parse(whole.choices[0].message.tool_calls[0].function.arguments), { city: 'Athens' });
    const final = await client.chat.completions.stream({ model, messages: user(CALL), tools: openaiTools }).finalChatCompletion();
    assert.equal(final.choices[0].message.tool_calls[0].function.name, 'get_weather');
    assert.deepEqual(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments), { city: 'Athens' });
  });

  test('openai: a text completion, and more than one choice is refused by name', async (cluster) => {
    const client = cluster.openai();
    const text = await client.completions.create({ model, prompt: `${say(SAID)}\n`, max_tokens: 50 });
    assert.equal(text.choices[0].text.trim(), SAID);
    const refused = await client.chat.completions.create({ model, messages: user('x'), n: 2 }).catch((e) => e);
    assert.equal(refused.status, 400);
    assert.equal(refused.param, 'n');
  });

  test('openai: embeddings as base64 (its default) and as floats are the same vectors, and may be cut', async (cluster) => {
    const client = cluster.openai();
    const input = ['one', 'two'];
    const packed = await client.embeddings.create({ model: 'fake-embed', input });
    const floats = await client.embeddings.create({ model: 'embed:small', input, encoding_format: 'float' });
    assert.equal(floats.model, 'embed:small');
    for (const [i, { embedding, index }] of packed.data.entries()) {
      assert.equal(index, i);
      embedding.forEach((x, k) => assert.ok(Math.abs(x - floats.data[i].embedding[k]) < 1e-6));
    }
    const cut = await client.embeddings.create({ model: 'fake-embed', input: 'one', dimensions: 8 });
    assert.equal(cut.data[0].embedding.length, 8);
    assert.ok(Math.abs(cut.data[0].embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-5);
    const many = await client.embeddings.create({ model: 'fake-embed', input: 'one', dimensions: 100_000 }).catch((e) => e);
    assert.equal(many.param, 'dimensions');
    const tokens = await client.embeddings.create({ model: 'fake-embed', input: [[300, 301], [302]] });
    assert.equal(tokens.data.length, 2);
  });

  test('openai: models, one model under its alias, and reranking', async (cluster) => {
    const client = cluster.openai();
    const ids = (await collect(await client.models.list())).map((m) => m.id).sort();
    assert.deepEqual(ids, ['fake-embed', 'fake-small', 'rank']);
    assert.equal((await client.models.retrieve('fake-small:latest')).object, 'model');
    const answer = await client.post('/rerank', { body: { model: 'rank', query: 'fox', documents: ['a', 'b', 'c'], top_n: 2 } });
    assert.equal(answer.results.length, 2);
    assert.ok(answer.results[0].relevance_score >= answer.results[1].relevance_score);
  });

  test('openai: responses, whole and streamed, with text and with a call', async (cluster) => {
    const client = cluster.openai();
    const whole = await client.responses.create({ model, input: say(SAID), instructions: 'Be brief.' });
    assert.equal(whole.output_text.trim(), SAID);
    assert.equal(whole.status, 'completed');
    assert.ok(whole.usage.input_tokens > 0 && whole.usage.output_tokens > 0);
    const events = await collect(await client.responses.create({ model, input: [{ role: 'user', content: say(SAID) }], stream: true }));
    assert.deepEqual(events.map((e) => e.sequence_number), events.map((_, i) => i));
    assert.equal(events[0].type, 'response.created');
    assert.equal(events.at(-1).type, 'response.completed');
    assert.equal(events.at(-1).response.output[0].content[0].text.trim(), SAID);
    const tools = [{ type: 'function', name: 'get_weather', parameters: PARAMETERS, strict: false }];
    const final = await client.responses.stream({ model, input: CALL, tools }).finalResponse();
    assert.equal(final.output[0].type, 'function_call');
    assert.deepEqual(JSON.parse(final.output[0].arguments), { city: 'Athens' });
    const cut = await client.responses.create({ model, input: '#fake tokens=9', max_output_tokens: 3 });
    assert.deepEqual([cut.status, cut.incomplete_details.reason], ['incomplete', 'max_output_tokens']);
    const state = await client.responses.create({ model, input: 'x', previous_response_id: 'resp_1' }).catch((e) => e);
    assert.equal(state.param, 'previous_response_id');
  });

  test('openai: errors are of the right class and say what to do', async (cluster) => {
    const wrongKey = await cluster.openai({ apiKey: 'aiv-wrong' }).models.list().catch((e) => e);
    assert.ok(wrongKey instanceof OpenAI.AuthenticationError);
    const unknown = await cluster.openai().chat.completions.create({ model: 'nope', messages: [] }).catch((e) => e);
    assert.ok(unknown instanceof OpenAI.NotFoundError);
    assert.equal(unknown.code, 'model_not_found');
    assert.match(unknown.message, /fake-small/);
    const kind = await cluster.openai().chat.completions.create({ model: 'fake-embed', messages: user('x') }).catch((e) => e);
    assert.match(kind.message, /v1\/embeddings/);
  });

  // ---- @anthropic-ai/sdk

  test('anthropic: a message, whole and streamed, with the same text and usage', async (cluster) => {
    const client = anthropic(cluster);
    const request = { model, max_tokens: 50, system: 'Be brief.', messages: user(say(SAID)) };
    const whole = await client.messages.create(request);
    assert.match(whole.id, /^msg_/);
    assert.equal(whole.content[0].text.trim(), SAID);
    assert.equal(whole.stop_reason, 'end_turn');
    const stream = client.messages.stream(request);
    let start;
    stream.on('streamEvent', (event) => (start ??= event));
    const final = await stream.finalMessage();
    assert.equal(final.content[0].text, whole.content[0].text);
    assert.deepEqual(final.usage.output_tokens, whole.usage.output_tokens);
    assert.equal(start.message.usage.input_tokens, whole.usage.input_tokens);
    const short = await client.messages.create({ ...request, max_tokens: 2, messages: user('#fake tokens=9') });
    assert.equal(short.stop_reason, 'max_tokens');
  });

  test('anthropic: the use of a tool and its result', async (cluster) => {
    const client = anthropic(cluster);
    const tools = [{ name: 'get_weather', input_schema: PARAMETERS }];
    const whole = await client.messages.create({ model, max_tokens: 50, tools, messages: user(CALL) });
    assert.equal(whole.stop_reason, 'tool_use');
    assert.deepEqual(whole.content[0].input, { city: 'Athens' });
    const final = await client.messages.stream({ model, max_tokens: 50, tools, messages: user(CALL) }).finalMessage();
    assert.deepEqual(final.content[0].input, { city: 'Athens' });
    const messages = [...user(CALL), { role: 'assistant', content: final.content }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: final.content[0].id, content: '21 degrees' }, { type: 'text', text: say(SAID) }] }];
    const answer = await client.messages.create({ model, max_tokens: 50, tools, messages });
    assert.equal(answer.content[0].text.trim(), SAID);
  });

  test('anthropic: a prefilled answer is continued and not repeated', async (cluster) => {
    const client = anthropic(cluster);
    const messages = [...user('#fake tokens=12'), { role: 'assistant', content: 'Once' }];
    const whole = await client.messages.create({ model, max_tokens: 50, messages });
    const final = await client.messages.stream({ model, max_tokens: 50, messages }).finalMessage();
    assert.ok(!whole.content[0].text.startsWith('Once'));
    assert.equal(final.content[0].text, whole.content[0].text);
  });

  test('anthropic: tokens are counted, models listed, errors are of the right class', async (cluster) => {
    const client = anthropic(cluster);
    const counted = await client.messages.countTokens({ model, messages: user('hello there') });
    const spent = await client.messages.create({ model, max_tokens: 1, messages: user('hello there') });
    assert.equal(counted.input_tokens, spent.usage.input_tokens);
    assert.ok((await collect(await client.models.list())).some((m) => m.id === model));
    const wrongKey = await anthropic(cluster, { apiKey: 'aiv-wrong' }).messages.create({ model, max_tokens: 1, messages: [] }).catch((e) => e);
    assert.ok(wrongKey instanceof Anthropic.AuthenticationError);
    assert.equal(wrongKey.error.error.type, 'authentication_error');
    const unknown = await client.messages.create({ model: 'nope', max_tokens: 1, messages: [] }).catch((e) => e);
    assert.ok(unknown instanceof Anthropic.NotFoundError);
    assert.match(unknown.requestID, /^req-/);
    const address = [{ type: 'image', source: { type: 'url', url: 'http://127.0.0.1/x.png' } }];
    const fetched = await client.messages.create({ model, max_tokens: 1, messages: user(address) }).catch((e) => e);
    assert.ok(fetched instanceof Anthropic.BadRequestError);
    assert.match(fetched.message, /fetches nothing/);
  });

  // ---- ollama

  test('ollama: chat and generate, streamed by default and whole', async (cluster) => {
    const client = ollama(cluster);
    const parts = await collect(await client.chat({ model, messages: user(say(SAID)), stream: true }));
    assert.equal(parts.map((p) => p.message.content).join('').trim(), SAID);
    assert.deepEqual(parts.map((p) => p.done), [...parts.slice(1).map(() => false), true]);
    const last = parts.at(-1);
    assert.equal(last.done_reason, 'stop');
    for (const key of ['total_duration', 'load_duration', 'prompt_eval_duration', 'eval_duration', 'eval_count']) assert.ok(last[key] > 0, key);
    const whole = await client.chat({ model: `${model}:latest`, messages: user(say(SAID)) });
    assert.equal(whole.message.content.trim(), SAID);
    const text = await client.generate({ model, prompt: say(SAID), options: { num_predict: 2, temperature: 0 } });
    assert.ok(text.response.trim() && text.response.length < SAID.length && SAID.startsWith(text.response.trim()));
    assert.equal(text.eval_count, 2);
    assert.equal(text.done_reason, 'length');
    const raw = await client.generate({ model, prompt: `${say(SAID)}\n`, raw: true });
    assert.equal(raw.response.trim(), SAID);
    const idle = await client.generate({ model, prompt: '', keep_alive: 0 });
    assert.deepEqual([idle.done, idle.done_reason], [true, 'unload']);
  });

  test('ollama: a call of a tool has its arguments as an object', async (cluster) => {
    const answer = await ollama(cluster).chat({ model, messages: user(CALL), tools: openaiTools });
    assert.deepEqual(answer.message.tool_calls, [{ function: { name: 'get_weather', arguments: { city: 'Athens' } } }]);
    const parts = await collect(await ollama(cluster).chat({ model, messages: user(CALL), tools: openaiTools, stream: true }));
    assert.deepEqual(parts.flatMap((p) => p.message.tool_calls ?? []), answer.message.tool_calls);
  });

  test('ollama: embed, list, show, ps, pull and version', async (cluster) => {
    const client = ollama(cluster);
    const { embeddings } = await client.embed({ model: 'fake-embed', input: ['one', 'two'] });
    assert.equal(embeddings.length, 2);
    const old = await client.embeddings({ model: 'fake-embed', prompt: 'one' });
    assert.deepEqual(old.embedding, embeddings[0]);
    const { models } = await client.list();
    assert.deepEqual(models.map((m) => m.name).sort(), ['fake-embed:latest', 'fake-small:latest', 'rank:latest']);
    assert.ok(models.every((m) => /^[0-9a-f]{64}$/.test(m.digest)));
    assert.ok((await client.show({ model })).capabilities.includes('completion'));
    assert.ok(new Date((await client.ps()).models[0].expires_at).getTime() > Date.now());
    assert.equal((await client.pull({ model })).status, 'success');
    assert.equal((await collect(await client.pull({ model, stream: true }))).at(-1).status, 'success');
    assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);
    const unknown = await client.pull({ model: 'nope' }).catch((e) => e);
    assert.match(unknown.message, /not deployed/);
  });

  // ---- ai (Vercel) and LangChain

  test('ai: text, a stream, a call of a tool, embeddings', async (cluster) => {
    const provider = vercel(cluster);
    const { text, usage } = await generateText({ model: provider(model), prompt: say(SAID), maxRetries: 0 });
    assert.equal(text.trim(), SAID);
    assert.ok(usage.outputTokens > 0);
    const stream = streamText({ model: provider(model), prompt: say(SAID), maxRetries: 0 });
    assert.equal((await collect(stream.textStream)).join('').trim(), SAID);
    assert.ok((await stream.usage).inputTokens > 0);
    const tools = { get_weather: tool({ description: 'weather', inputSchema: jsonSchema(PARAMETERS) }) };
    const called = await generateText({ model: provider(model), prompt: CALL, tools, maxRetries: 0 });
    assert.deepEqual(called.toolCalls[0].input, { city: 'Athens' });
    const { embeddings } = await embedMany({ model: provider.embeddingModel('fake-embed'), values: ['one', 'two'], maxRetries: 0 });
    assert.equal(embeddings.length, 2);
  });

  test('langchain: invoke, stream, a bound tool, embeddings', async (cluster) => {
    const chat = langchain(cluster, { model });
    assert.equal((await chat.invoke([new HumanMessage(say(SAID))])).content.trim(), SAID);
    const chunks = await collect(await chat.stream([new HumanMessage(say(SAID))]));
    assert.equal(chunks.map((c) => c.content).join('').trim(), SAID);
    const called = await chat.bindTools(openaiTools).invoke([new HumanMessage(CALL)]);
    assert.deepEqual(called.tool_calls[0].args, { city: 'Athens' });
    const vectors = await langchainEmbeddings(cluster, { model: 'fake-embed' }).embedDocuments(['one', 'two']);
    assert.equal(vectors.length, 2);
  });

  test('an engine that dies in mid-answer: every client gets the whole answer or an error, never a short one', async (cluster) => {
    const whole = (await cluster.openai().chat.completions.create({ model, messages: user('#fake tokens=30') })).choices[0].message.content;
    const attempts = {
      openai: async () => (await collect(await cluster.openai().chat.completions.create({ model, messages: user(BROKEN), stream: true }))).map((c) => c.choices[0]?.delta.content ?? '').join(''),
      responses: async () => (await cluster.openai().responses.stream({ model, input: BROKEN }).finalResponse()).output_text,
      anthropic: async () => (await anthropic(cluster).messages.stream({ model, max_tokens: 100, messages: user(BROKEN) }).finalMessage()).content[0].text,
      ollama: async () => (await collect(await ollama(cluster).chat({ model, messages: user(BROKEN), stream: true }))).map((p) => p.message.content).join(''),
      ai: async () => {
        let failure;
        const stream = streamText({ model: vercel(cluster)(model), prompt: BROKEN, maxRetries: 0, onError: ({ error }) => (failure = error) });
        const text = (await collect(stream.textStream)).join('');
        if (failure) throw failure;
        return text;
      },
      langchain: async () => (await collect(await langchain(cluster, { model }).stream([new HumanMessage(BROKEN)]))).map((c) => c.content).join(''),
    };
    for (const [client, attempt] of Object.entries(attempts)) {
      await cluster.waitForReplicas(model, 2, 60_000);
      const outcome = await attempt().then((text) => ({ text }), (error) => ({ error }));
      assert.ok(outcome.error || outcome.text.length >= whole.length, `${client}: ${JSON.stringify(outcome)} of ${whole}`);
    }
  });
});
