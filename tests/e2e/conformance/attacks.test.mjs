// What strangers send to a public port: requests that two parsers read differently, floods, clients that are slow on
// purpose, bodies made to break a parser; and the same over HTTP/2. After each the next request is served.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { after, before, describe, it } from 'node:test';
import { aivBin } from '../lib/places.mjs';
import { residentBytes } from '../lib/processes.mjs';
import { withCluster } from '../lib/suite.mjs';
import { waitFor, within } from '../lib/wait.mjs';

const model = 'fake-small';
const SMUGGLED = 'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n';

// Sends `bytes` and returns all that comes until the server closes, or `quietMs` pass after the first answer.
// A connection that is reset is a failure where `cleanly`.
function exchange(cluster, bytes, { quietMs = 0, limitMs = 20_000, cleanly = false } = {}) {
  const { hostname, port } = new URL(cluster.url);
  return within(
    `an answer to ${String(bytes).slice(0, 60)}`,
    limitMs,
    new Promise((resolve, reject) => {
      const socket = net.connect(Number(port), hostname, () => socket.write(bytes));
      let text = '';
      let quiet;
      const done = () => {
        clearTimeout(quiet);
        socket.destroy();
        resolve(text);
      };
      socket.on('data', (piece) => {
        text += piece.toString('latin1');
        if (quietMs) {
          clearTimeout(quiet);
          quiet = setTimeout(done, quietMs);
        }
      });
      socket.on('end', done);
      socket.on('error', (error) => (text && !cleanly ? done() : reject(error)));
    }),
  );
}

const statusOf = (answer) => Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1]);
const answersIn = (text) => text.split(/HTTP\/1\.1 \d{3} /).length - 1;

withCluster('A stranger at the public port', { engine: 'fake', gpus: 'A:2GiB' }, (test) => {
  const head = (cluster, more = '', route = '/v1/chat/completions') =>
    `POST ${route} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${cluster.key}\r\nContent-Type: application/json\r\n${more}`;
  const served = async (cluster) => assert.equal((await cluster.fetch('/v1/models')).status, 200);

  test('cannot hide a request in another', async (cluster) => {
    const pairs = [
      ['length and chunked', `Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
      ['chunked and length', `Transfer-Encoding: chunked\r\nContent-Length: ${5 + SMUGGLED.length}\r\n\r\n0\r\n\r\n${SMUGGLED}`],
      ['two lengths', `Content-Length: 0\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
      ['a list of lengths', `Content-Length: 0, ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
      ['a length with a sign', `Content-Length: +0\r\n\r\n${SMUGGLED}`],
      ['a length in hexadecimal', `Content-Length: 0x0\r\n\r\n${SMUGGLED}`],
      ['another coding', `Transfer-Encoding: xchunked\r\n\r\n${SMUGGLED}`],
      ['a list of codings', `Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
      ['two codings', `Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${SMUGGLED}`],
      ['a coding with a tab', `Transfer-Encoding:\tchunked\x0b\r\n\r\n0\r\n\r\n${SMUGGLED}`],
      ['a blank before the colon', `Content-Length : 0\r\n\r\n${SMUGGLED}`],
      ['a folded line', `X: a\r\n Content-Length: 0\r\n\r\n${SMUGGLED}`],
      ['a bare line feed', `X: a\nContent-Length: 0\r\n\r\n${SMUGGLED}`],
      ['a bare carriage return', `X: a\rContent-Length: 0\r\n\r\n${SMUGGLED}`],
      ['a NUL', `X: a\0b\r\nContent-Length: 0\r\n\r\n${SMUGGLED}`],
      ['two hosts', `Host: other\r\nContent-Length: 0\r\n\r\n${SMUGGLED}`],
      ['a chunk size beyond 64 bits', `Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n${SMUGGLED}`],
      ['a chunk size with a sign', `Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n${SMUGGLED}`],
      ['a line feed in a chunk extension', `Transfer-Encoding: chunked\r\n\r\n0;a\n\r\n\r\n${SMUGGLED}`],
    ];
    for (const [what, rest] of pairs) {
      const answer = await exchange(cluster, head(cluster, rest));
      assert.ok([400, 501].includes(statusOf(answer)), `${what}: ${answer.slice(0, 300)}`);
      assert.equal(answersIn(answer), 1, `${what}: ${answer}`);
      assert.doesNotMatch(answer, /"status":"ok"/, what);
    }
    await served(cluster);
  });

  test('gets a word why when the head is too much, and takes no memory', async (cluster) => {
    const gateway = cluster.processes().find(({ command }) => command.includes(' gateway-process '));
    const before = residentBytes(gateway.pid);
    const heads = [
      [431, `GET /${'a'.repeat(8 << 20)} HTTP/1.1\r\nHost: localhost\r\n\r\n`],
      [431, `GET /health HTTP/1.1\r\nHost: localhost\r\n${'X: y\r\n'.repeat(101)}\r\n`],
      [431, `GET /health HTTP/1.1\r\nHost: localhost\r\nX: ${'a'.repeat(1 << 20)}\r\n\r\n`],
      [405, 'TRACE /health HTTP/1.1\r\nHost: localhost\r\n\r\n'],
      [405, 'CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n'],
      [400, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
      [400, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
      [505, 'GET /health HTTP/3.0\r\nHost: localhost\r\n\r\n'],
      [417, 'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: wonders\r\n\r\nx'],
    ];
    for (const [status, bytes] of heads) {
      const answer = await exchange(cluster, bytes);
      assert.equal(statusOf(answer), status, `${bytes.slice(0, 40)}: ${answer.slice(0, 200)}`);
    }
    // Offers of other protocols are not taken up.
    const upgrade = await exchange(cluster, 'GET /health HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: close, Upgrade\r\n\r\n');
    assert.equal(statusOf(upgrade), 200);
    assert.ok(residentBytes(gateway.pid) - before < 32 << 20, `${before} -> ${residentBytes(gateway.pid)}`);
    await served(cluster);
  });

  test('reads the 413 although the body is still on its way', async (cluster) => {
    const size = 32 << 20;
    const announced = Buffer.concat([Buffer.from(head(cluster, `Content-Length: ${size}\r\n\r\n`)), Buffer.alloc(size, 0x20)]);
    const chunk = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(1 << 20, 0x20), Buffer.from('\r\n')]);
    const chunked = Buffer.concat([Buffer.from(head(cluster, 'Transfer-Encoding: chunked\r\n\r\n')), ...Array(32).fill(chunk)]);
    for (const bytes of [announced, chunked]) {
      const answer = await exchange(cluster, bytes, { cleanly: true });
      assert.equal(statusOf(answer), 413, answer.slice(0, 200));
      assert.match(answer, /"code":"body_too_large"/);
      assert.match(answer, /^connection: close\r$/m);
    }
    await served(cluster);
  });

  test('is told to go on, or why not, before it sends a body', async (cluster) => {
    const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'x' }] });
    const expects = `Expect: 100-continue\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
    const refused = await exchange(cluster, `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n${expects}`);
    assert.equal(statusOf(refused), 401, refused);
    const large = await exchange(cluster, head(cluster, `Expect: 100-continue\r\nContent-Length: ${1 << 30}\r\n\r\n`));
    assert.equal(statusOf(large), 413, large);
    const { hostname, port } = new URL(cluster.url);
    const socket = net.connect(Number(port), hostname, () => socket.write(head(cluster, expects)));
    let text = '';
    socket.on('data', (piece) => {
      if (!text) socket.write(body);
      text += piece;
    });
    await within('the answer', 20_000, new Promise((resolve) => socket.on('close', resolve)));
    assert.match(text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/);
  });

  test('gets pipelined answers in order, and none behind one that ends the connection', async (cluster) => {
    const get = (route, more = '') => `GET ${route} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${cluster.key}\r\n${more}\r\n`;
    const three = await exchange(cluster, get('/health') + get('/v1/models') + get('/v1/nope', 'Connection: close\r\n') + get('/health'));
    assert.equal(answersIn(three), 3, three);
    assert.ok(three.indexOf('"status":"ok"') < three.indexOf('"object":"list"') && three.indexOf('"object":"list"') > 0, three);
  });

  test('cannot break a parser with a body', async (cluster) => {
    const chat = (content) => `{"model":"${model}","messages":[{"role":"user","content":${content}}]}`;
    const bodies = {
      deep: '['.repeat(200_000),
      'deep and closed': chat(`${'['.repeat(50_000)}${']'.repeat(50_000)}`),
      'deep objects': `{"model":"${model}","messages":${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}}`,
      'a broken character': Buffer.concat([Buffer.from(`{"model":"${model}","messages":[{"role":"user","content":"`), Buffer.from([0xc3, 0x28, 0xff]), Buffer.from('"}]}')]),
      'half a surrogate': chat('"\\ud800"'),
      'a number without end': `{"model":"${model}","max_tokens":${'9'.repeat(100_000)},"messages":[{"role":"user","content":"x"}],"prompt":"x","input":"x"}`,
      'a number that overflows': `{"model":"${model}","temperature":1e999,"max_tokens":1e999,"seed":1e999,"options":{"temperature":1e999},"messages":[{"role":"user","content":"x"}],"prompt":"x","input":"x"}`,
      'a NUL': chat('"\0"'),
      'a key twice': `{"model":"${model}","model":"x","messages":[]}`,
      'nothing': '',
      'no JSON': 'name=value',
    };
    for (const route of ['/v1/chat/completions', '/v1/completions', '/v1/embeddings', '/v1/rerank', '/v1/responses', '/v1/messages', '/v1/messages/count_tokens', '/api/chat', '/api/generate', '/api/embed']) {
      for (const [what, body] of Object.entries(bodies)) {
        const response = await fetch(cluster.url + route, { method: 'POST', body, headers: { authorization: `Bearer ${cluster.key}`, 'content-type': 'application/json' } });
        const text = await response.text();
        assert.ok(response.status >= 400 && response.status < 500, `${route}, ${what}: ${response.status} ${text.slice(0, 200)}`);
        assert.doesNotThrow(() => JSON.parse(text), `${route}, ${what}: ${text.slice(0, 200)}`);
      }
    }
    await served(cluster);
  });

  test('is slow 300 times over, and nobody else waits', { timeout: 90_000 }, async (cluster) => {
    const { hostname, port } = new URL(cluster.url);
    const starts = ['G', 'POST /v1/chat/completions HTTP/1.1\r\nHost: loc', head(cluster, 'Content-Length: 100\r\n\r\n{"mod')];
    const slow = [];
    const answers = [];
    for (let i = 0; i < 300; ++i) {
      const socket = net.connect(Number(port), hostname, () => socket.write(starts[i % starts.length]));
      socket.on('error', () => {});
      socket.on('data', (piece) => answers.push(statusOf(String(piece))));
      slow.push(new Promise((resolve) => socket.on('close', resolve)));
    }
    const times = [];
    for (let i = 0; i < 40; ++i) {
      const began = performance.now();
      const response = await cluster.fetch('/v1/chat/completions', { method: 'POST', body: { model, messages: [{ role: 'user', content: '#fake tokens=1 token_ms=0' }] } });
      await response.text();
      assert.equal(response.status, 200);
      times.push(performance.now() - began);
    }
    times.sort((a, b) => a - b);
    assert.ok(times[38] < 2000, `the second longest of 40 requests took ${times[38].toFixed(0)} ms`);
    await within('the slow ones are ended', 60_000, Promise.all(slow));
    assert.equal(answers.length, 300);
    assert.deepEqual([...new Set(answers)], [408]);
  });
});

const LISTED = 'https://chat.example.org';

// `aiv server` with TLS, one listed origin and few connections for each address.
describe('A server with TLS', () => {
  const server = {};
  before(async () => {
    server.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aivt-'));
    const certificate = path.join(server.dir, 'public.pem');
    const key = path.join(server.dir, 'public.key');
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', certificate], { encoding: 'utf8' });
    assert.equal(made.status, 0, made.stderr);
    server.ca = fs.readFileSync(certificate);
    const env = { ...process.env, AIV_TEST_MARK: crypto.randomUUID() };
    server.process = spawn(aivBin, ['server', '--data', path.join(server.dir, 'd'), '--listen', '127.0.0.1:0', '--link-listen', '127.0.0.1:0', '--tls-cert', certificate, '--tls-key', key, '--cors-origin', LISTED, '--connections-per-address', '8'], { stdio: ['ignore', 'pipe', 'ignore'], env });
    server.ended = new Promise((resolve) => server.process.once('exit', resolve));
    let out = '';
    server.process.stdout.on('data', (piece) => (out += piece));
    const ready = await waitFor('`aiv server` is ready', () => /^ready (https:\/\/127\.0\.0\.1:(\d+))$/m.exec(out), { timeoutMs: 30_000 });
    server.url = ready[1];
    server.port = Number(ready[2]);
    // The controller writes it, perhaps later than the gateway answers.
    server.key = await waitFor('the admin key is there', () => fs.readFileSync(path.join(server.dir, 'd/admin.key'), 'utf8').trim());
  });
  after(async () => {
    if (!server.process) return;
    server.process.kill('SIGTERM');
    await within('the server ends', 20_000, server.ended);
    fs.rmSync(server.dir, { recursive: true, force: true });
  });

  const connect = () => http2.connect(server.url, { ca: server.ca });
  const ask = (session, headers, body) =>
    within(
      `an answer to ${headers[':path']}`,
      15_000,
      new Promise((resolve, reject) => {
        const stream = session.request({ authorization: `Bearer ${server.key}`, ...headers }, { endStream: body === undefined });
        const answer = { text: '' };
        stream.on('response', (fields) => (answer.headers = fields));
        stream.on('data', (piece) => (answer.text += piece));
        stream.on('close', () => (answer.headers ? resolve(answer) : reject(new Error(`reset ${stream.rstCode}`))));
        stream.on('error', (error) => answer.headers || reject(error));
        if (body !== undefined) stream.end(body);
      }),
    );

  it('speaks HTTP/2 to a client that chooses it, many requests at once', async () => {
    const session = connect();
    try {
      const answers = await Promise.all(Array.from({ length: 50 }, () => ask(session, { ':path': '/v1/models' })));
      assert.equal(session.alpnProtocol, 'h2');
      assert.ok(answers.every((answer) => answer.headers[':status'] === 200 && JSON.parse(answer.text).object === 'list'));
      assert.equal(new Set(answers.map((answer) => answer.headers['x-request-id'])).size, 50);
      assert.equal((await ask(session, { ':path': '/v1/models', authorization: 'Bearer aiv-wrong' })).headers[':status'], 401);
      assert.equal((await ask(session, { ':path': '/v1/chat/completions', ':method': 'POST', 'content-type': 'application/json' }, '{"model":"none","messages":[{"role":"user","content":"x"}]}')).headers[':status'], 404);
      const page = await ask(session, { ':path': '/', accept: 'text/html' });
      assert.equal(page.headers[':status'], 200);
    } finally {
      session.close();
    }
  });

  it('serves the official client that knows its certificate, and none that does not', async () => {
    const script = `import OpenAI from 'openai';
      const client = new OpenAI({ baseURL: process.argv[1] + '/v1', apiKey: process.argv[2], maxRetries: 0 });
      const models = await client.models.list().then((page) => page.object, (error) => error.constructor.name);
      const chat = await client.chat.completions.create({ model: 'none', messages: [{ role: 'user', content: 'x' }] }).catch((error) => error.constructor.name);
      console.log(JSON.stringify([models, chat]));`;
    const run = (env) => {
      const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script, server.url, server.key], { cwd: import.meta.dirname, encoding: 'utf8', env: { ...process.env, ...env }, timeout: 60_000 });
      assert.ok(stdout, stderr);
      return JSON.parse(stdout);
    };
    assert.deepEqual(run({ NODE_EXTRA_CA_CERTS: path.join(server.dir, 'public.pem') }), ['list', 'NotFoundError']);
    assert.deepEqual(run({}), ['APIConnectionError', 'APIConnectionError']);
  });

  it('holds HTTP/2 to the same rules', async () => {
    const session = connect();
    try {
      for (const bad of ['/v1/../aiv/v1/keys', '/v1%2fmodels', '//v1/models', '/v1/models%00']) {
        assert.equal((await ask(session, { ':path': bad })).headers[':status'], 400, bad);
      }
      assert.equal((await ask(session, { ':path': '/v1/models', origin: 'https://evil.example' })).headers[':status'], 403);
      assert.equal((await ask(session, { ':path': '/v1/models', 'x-long': 'a'.repeat(20_000) })).headers[':status'], 431);
      const large = await ask(session, { ':path': '/v1/chat/completions', ':method': 'POST', 'content-type': 'application/json' }, Buffer.alloc(8 << 20, 0x20));
      assert.equal(large.headers[':status'], 413, large.text);
      assert.equal((await ask(session, { ':path': '/health' })).headers[':status'], 200);
    } finally {
      session.close();
    }
  });

  it('speaks HTTP/1.1 to one that does not, and leaves a protocol it does not know', async () => {
    const text = await within(
      'an answer',
      10_000,
      new Promise((resolve, reject) => {
        const socket = tls.connect({ port: server.port, host: '127.0.0.1', ca: server.ca, ALPNProtocols: ['http/1.1'] }, () => socket.write('GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'));
        let all = '';
        socket.on('data', (piece) => (all += piece));
        // The end is said in TLS, so it cannot be forged by whoever cuts the connection.
        socket.on('end', () => resolve(all));
        socket.on('error', reject);
      }),
    );
    assert.match(text, /^HTTP\/1\.1 200/);
    await assert.rejects(
      new Promise((resolve, reject) => {
        const socket = tls.connect({ port: server.port, host: '127.0.0.1', ca: server.ca, ALPNProtocols: ['h3'] }, () => resolve(socket.destroy()));
        socket.on('error', reject);
      }),
    );
  });

  it('lets pages of a listed origin use the API, and no others', async () => {
    const session = connect();
    try {
      const preflight = (origin, route = '/v1/chat/completions') =>
        ask(session, { ':path': route, ':method': 'OPTIONS', authorization: '', origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' });
      const yes = await preflight(LISTED);
      assert.equal(yes.headers[':status'], 204);
      assert.equal(yes.headers['access-control-allow-origin'], LISTED);
      assert.equal(yes.headers['access-control-allow-headers'], 'authorization,content-type');
      assert.match(yes.headers['access-control-allow-methods'], /POST/);
      assert.equal(yes.headers['access-control-allow-credentials'], undefined);
      const got = await ask(session, { ':path': '/v1/models', origin: LISTED });
      assert.equal(got.headers[':status'], 200);
      assert.equal(got.headers['access-control-allow-origin'], LISTED);
      assert.match(got.headers.vary, /origin/i);
      // Errors too, or the page could not read them.
      const refused = await ask(session, { ':path': '/v1/models', origin: LISTED, authorization: 'Bearer aiv-wrong' });
      assert.equal(refused.headers[':status'], 401);
      assert.equal(refused.headers['access-control-allow-origin'], LISTED);
      for (const [origin, route] of [['https://evil.example', '/v1/chat/completions'], ['null', '/v1/chat/completions'], [LISTED, '/aiv/v1/keys'], [`${LISTED}.evil.example`, '/v1/models']]) {
        const no = await preflight(origin, route);
        assert.equal(no.headers[':status'], 403, `${origin} ${route}`);
        assert.equal(no.headers['access-control-allow-origin'], undefined);
      }
    } finally {
      session.close();
    }
  });

  it('takes so many connections from one address', async () => {
    const open = [];
    const dial = () =>
      new Promise((resolve) => {
        const socket = tls.connect({ port: server.port, host: '127.0.0.1', ca: server.ca }, () => socket.write('GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n'));
        socket.once('data', (piece) => resolve(statusOf(String(piece))));
        socket.on('error', () => resolve(null));
        open.push(socket);
      });
    try {
      await waitFor('earlier connections are gone', async () => {
        for (const socket of open.splice(0)) socket.destroy();
        for (let i = 0; i < 8; ++i) if ((await within('an answer', 5000, dial())) !== 200) return false;
        return true;
      });
      assert.notEqual(await within('an answer', 5000, dial()), 200);
      for (const socket of open.splice(0)) socket.destroy();
      await waitFor('there is room again', async () => (await within('an answer', 5000, dial())) === 200);
    } finally {
      for (const socket of open) socket.destroy();
    }
  });

  it('refuses to start with an origin that is none, with the way to write it', () => {
    for (const [args, words] of [
      [['--cors-origin', 'chat.example.org'], /https:\/\/chat\.example\.org/],
      [['--cors-origin', '*', '--no-auth'], /without authentication/],
      [['--cors-origin', '*', '--cors-origin', LISTED], /stands alone/],
    ]) {
      const run = spawnSync(aivBin, ['server', '--data', path.join(server.dir, 'x'), '--listen', '127.0.0.1:0', ...args], { encoding: 'utf8', timeout: 20_000 });
      assert.equal(run.status, 2, `${args}: ${run.stderr}`);
      assert.match(run.stderr, words);
    }
  });
});
