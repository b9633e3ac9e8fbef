// What a client sees of a healthy cluster (fake engine: its answers are known beforehand).
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { withCluster } from '../lib/suite.mjs';
import { readEvents, textOf } from '../lib/sse.mjs';
import { waitFor } from '../lib/wait.mjs';

const messages = (content) => [{ role: 'user', content }];
const MODEL = 'fake-small';

// An OpenAI error as the SDK shows it, with all four fields of its form.
async function refused(promise, status, type, code) {
  const error = await promise.then(
    () => assert.fail('the request was served'),
    (thrown) => thrown,
  );
  assert.ok(error instanceof OpenAI.APIError, String(error));
  assert.equal(error.status, status, String(error));
  assert.equal(error.type, type);
  if (code) assert.equal(error.code, code);
  assert.equal(typeof error.error.message, 'string');
  assert.ok('param' in error.error, 'the form has `param`');
  return error;
}

withCluster('A client of a healthy cluster', { gpus: 'GTX 1080:8GiB,RX 580:8GiB;RTX 3060:12GiB' }, (test) => {
  test('was told "ready" when its key counted', (cluster) => {
    assert.ok(!cluster.logs().includes('admin_key_unknown'), 'the server gave up to wait for its own key');
  });

  test('sees one replica of fake-small on every node, each within its GPU', async (cluster) => {
    const replicas = await cluster.waitForReplicas(MODEL, 2);
    assert.deepEqual(replicas.map((r) => r.node).sort(), ['n1', 'n2']);
    const held = (id) => replicas.flatMap((r) => r.devices).filter((d) => d.id === id).reduce((sum, d) => sum + d.bytes, 0);
    const devices = await waitFor('the nodes have measured what is free', async () => {
      const items = await cluster.items('devices');
      return items.every((d) => d.free_bytes <= d.vram_bytes - held(d.id)) ? items : null;
    });
    assert.deepEqual(devices.map((d) => d.id).sort(), ['n1/0', 'n1/1', 'n2/0']);
    for (const device of devices) assert.ok(held(device.id) <= device.vram_bytes, `${device.id} holds ${held(device.id)} of ${device.vram_bytes}`);
    for (const replica of replicas) {
      assert.ok(replica.pid > 0);
      assert.ok(replica.endpoint.startsWith('unix:/'));
      assert.equal(replica.slots_busy, 0);
      assert.ok(replica.devices.every((d) => d.bytes > 0));
    }
  });

  test('lists the models', async (cluster) => {
    const list = await cluster.openai().models.list();
    const model = list.data.find((m) => m.id === MODEL);
    assert.ok(model, JSON.stringify(list.data));
    assert.equal(model.object, 'model');
    assert.equal((await cluster.openai().models.retrieve(MODEL)).id, MODEL);
  });

  test('chats, streaming and not, with the same words', async (cluster) => {
    const client = cluster.openai();
    const whole = await client.chat.completions.create({ model: MODEL, messages: messages('Tell me something.') });
    assert.equal(whole.model, MODEL);
    assert.equal(whole.object, 'chat.completion');
    assert.equal(whole.choices[0].finish_reason, 'stop');
    assert.equal(whole.usage.completion_tokens, 24);
    const text = whole.choices[0].message.content;
    assert.equal(text.trim().split(' ').length, 24);
    const stream = await client.chat.completions.create({ model: MODEL, messages: messages('Tell me something.'), stream: true, stream_options: { include_usage: true } });
    let streamed = '';
    const ids = new Set();
    const finishes = [];
    let usage = null;
    let roles = 0;
    for await (const chunk of stream) {
      ids.add(chunk.id);
      assert.equal(chunk.model, MODEL);
      streamed += chunk.choices[0]?.delta?.content ?? '';
      if (chunk.choices[0]?.delta?.role) roles += 1;
      if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason);
      if (chunk.usage) usage = chunk.usage;
    }
    assert.equal(streamed, text);
    assert.equal(ids.size, 1);
    assert.equal(roles, 1);
    assert.deepEqual(finishes, ['stop']);
    assert.equal(usage.completion_tokens, 24);
    assert.equal(usage.total_tokens, usage.prompt_tokens + 24);
  });

  test('completes text, streaming and not', async (cluster) => {
    const client = cluster.openai();
    const whole = await client.completions.create({ model: MODEL, prompt: 'Once upon a time', max_tokens: 5 });
    assert.equal(whole.choices[0].finish_reason, 'length');
    let streamed = '';
    for await (const chunk of await client.completions.create({ model: MODEL, prompt: 'Once upon a time', max_tokens: 5, stream: true })) {
      streamed += chunk.choices[0]?.text ?? '';
    }
    assert.equal(streamed, whole.choices[0].text);
    assert.equal(streamed.trim().split(' ').length, 5);
  });

  test('gets tokens as they come, framed as events that end with [DONE]', async (cluster) => {
    const started = Date.now();
    const response = await cluster.fetch('/v1/chat/completions', { method: 'POST', body: { model: MODEL, stream: true, messages: messages('#fake tokens=10 token_ms=100') } });
    assert.equal(response.status, 200);
    assert.match(response.headers.get('content-type'), /^text\/event-stream/);
    assert.match(response.headers.get('cache-control') ?? '', /no-cache/);
    assert.equal(response.headers.get('content-encoding'), null);
    assert.ok(response.headers.get('x-request-id'));
    let firstAt = 0;
    const { events, ended } = await readEvents(response, { until: () => ((firstAt ||= Date.now()), false) });
    assert.equal(ended, 'complete');
    assert.equal(events.at(-1), '[DONE]');
    assert.ok(firstAt - started < 500, `the first event came after ${firstAt - started} ms of about 900`);
    assert.equal(textOf(events).trim().split(' ').length, 10);
    assert.equal(events.filter((data) => data.includes('"usage":{')).length, 0, 'usage was not asked for');
  });

  test('calls tools', async (cluster) => {
    const stream = await cluster.openai().chat.completions.create({
      model: MODEL,
      stream: true,
      messages: messages('#fake tool=weather:{"city":"Athens"}'),
      tools: [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }],
    });
    let name = '';
    let args = '';
    let finish = '';
    for await (const chunk of stream) {
      const call = chunk.choices[0]?.delta?.tool_calls?.[0];
      name += call?.function?.name ?? '';
      args += call?.function?.arguments ?? '';
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    assert.equal(name, 'weather');
    assert.deepEqual(JSON.parse(args), { city: 'Athens' });
    assert.equal(finish, 'tool_calls');
  });

  test('shares the slots with many others at once', async (cluster) => {
    const client = cluster.openai();
    const answers = await Promise.all(
      Array.from({ length: 16 }, (_, i) => client.chat.completions.create({ model: MODEL, messages: messages(`#fake tokens=8 token_ms=5\nquestion ${i}`) })),
    );
    assert.equal(new Set(answers.map((a) => a.choices[0].message.content)).size, 16);
  });

  test('is told which key, model or field is wrong', async (cluster) => {
    const ask = (options, body = {}) => cluster.openai(options).chat.completions.create({ model: MODEL, messages: messages('hi'), ...body });
    await refused(ask({ apiKey: 'aiv-wrong' }), 401, 'invalid_request_error', 'invalid_api_key');
    const unknown = await refused(ask({}, { model: 'no-such-model' }), 404, 'invalid_request_error', 'model_not_found');
    assert.equal(unknown.error.param, 'model');
    assert.match(unknown.error.message, /fake-small/, 'it lists what there is');
    const wrong = await refused(ask({}, { messages: 'hi' }), 400, 'invalid_request_error');
    assert.equal(wrong.error.param, 'messages');
  });

  test('without a key gets 401 with the way to authenticate', async (cluster) => {
    for (const headers of [{}, { authorization: 'Basic eDp5' }, { authorization: 'Bearer ' }]) {
      const response = await cluster.fetch('/v1/models', { key: '', headers });
      assert.equal(response.status, 401);
      assert.match(response.headers.get('www-authenticate') ?? '', /^Bearer/);
      assert.equal((await response.json()).error.code, 'invalid_api_key');
    }
    assert.equal((await cluster.fetch('/v1/models', { key: '', headers: { 'x-api-key': cluster.key } })).status, 200);
  });

  test('gets 400 with the place of the fault for a body that is not right', async (cluster) => {
    const post = (body) => cluster.fetch('/v1/chat/completions', { method: 'POST', body });
    for (const body of ['{"model":', 'nonsense', '', '[]', '"text"', '{"messages":[{"role":"user","content":"x"}]}', '{"model":7,"messages":[]}', `${'['.repeat(100_000)}`,
      '{"model":"fake-small","messages":[{"role":"user","content":"\ud800"}],"max_tokens":"many"}', '{"model":"fake-small","model":"other","messages":[{"role":"user","content":"x"}]}',
      '{"model":"fake-small","stream":"yes","messages":[{"role":"user","content":"x"}]}']) {
      const response = await post(body);
      const text = await response.text();
      assert.equal(response.status, 400, `${body.slice(0, 80)} -> ${response.status} ${text.slice(0, 200)}`);
      const { error } = JSON.parse(text);
      assert.deepEqual(Object.keys(error).sort(), ['code', 'message', 'param', 'type']);
      assert.equal(error.type, 'invalid_request_error');
    }
    assert.equal((await post({ model: MODEL, messages: messages('still served') })).status, 200);
  });

  test('gets 413 for a body over the limit, and the next request is served', async (cluster) => {
    const size = 64 * 1024 * 1024;
    const response = await cluster
      .fetch('/v1/chat/completions', { method: 'POST', body: JSON.stringify({ model: MODEL, messages: messages('x'.repeat(size)) }) })
      .catch((error) => error);
    // The connection may be closed while the body is still on its way.
    if (response instanceof Response) {
      assert.equal(response.status, 413);
      assert.equal((await response.json()).error.type, 'invalid_request_error');
    } else {
      assert.match(String(response.cause ?? response), /ECONNRESET|EPIPE|closed/);
    }
    assert.equal((await cluster.fetch('/v1/models')).status, 200);
  });

  test('reaches nothing but the listed routes', async (cluster) => {
    for (const route of ['/slots', '/completion', '/tokenize', '/apply-template', '/infill', '/v1/nonsense', '/aiv/v1/nonsense', '/models/load', '/internal/v1/links', '/node/v1/hello', '/../etc/passwd']) {
      const response = await cluster.fetch(route, { method: 'POST', body: '{}' });
      assert.ok([404, 405, 400].includes(response.status), `${route}: ${response.status}`);
    }
    assert.equal((await cluster.fetch('/v1/chat/completions')).status, 405);
  });

  test('finds health without a key, metrics with one, and a new request id on every answer', async (cluster) => {
    const health = await cluster.fetch('/health', { key: '' });
    assert.equal(health.status, 200);
    assert.equal((await cluster.fetch('/metrics', { key: '' })).status, 401);
    const metrics = await cluster.fetch('/metrics');
    assert.equal(metrics.status, 200);
    assert.match(metrics.headers.get('content-type'), /^text\/plain/);
    const text = await metrics.text();
    assert.match(text, /^# TYPE aivailable_\w+ (counter|gauge|histogram)$/m);
    assert.ok(!text.includes(cluster.key));
    const ids = new Set();
    for (const route of ['/health', '/metrics', '/v1/models', '/nope']) ids.add((await cluster.fetch(route, { headers: { 'x-request-id': 'mine' } })).headers.get('x-request-id'));
    assert.equal(ids.size, 4);
    assert.ok(!ids.has(null) && !ids.has('mine'));
  });

  test('finds the web page at /', async (cluster) => {
    const response = await cluster.fetch('/', { key: '' });
    assert.equal(response.status, 200);
    assert.match(response.headers.get('content-type'), /^text\/html/);
  });
});
