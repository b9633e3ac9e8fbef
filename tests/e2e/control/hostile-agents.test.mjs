// Agents with a sound certificate that say what no agent says: each is refused by name, and a sound node beside them notices
// nothing.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http2 from 'node:http2';
import path from 'node:path';
import tls from 'node:tls';
import { after, before, describe, it } from 'node:test';
import { makeIdentities } from '../../../bench/faults/agents.mjs';
import { processesOf } from '../lib/processes.mjs';
import { Site } from '../lib/site.mjs';
import { waitFor } from '../lib/wait.mjs';

const GIB = 2 ** 30;
const WAIT = { timeoutMs: 40_000, everyMs: 50 };

describe('hostile agents', { concurrency: false }, () => {
  let site;
  let identities;
  const sockets = [];
  before(async () => {
    site = await Site.start();
    site.startNode('good', { line: await site.token() });
    await site.waitForNode('good');
    identities = makeIdentities({ dataDir: site.data, folder: path.join(site.dir, 'certificates'), count: 1 });
  });
  after(async () => {
    for (const socket of sockets) socket.destroy();
    await site?.stop();
  });

  const observed = (changes = {}) => ({
    node: 'sim-001', boot_id: 'boot', incarnation: '00000000000000aa', seq: 1, applied: { epoch: 0, rev: 0 }, agent_version: 'x', engine: 'fake', replicas: [],
    devices: [{ id: 'sim-001/0', uuid: 'u', name: 'A', backend: 'fake', kind: 'gpu', vram_bytes: 8 * GIB, free_bytes: 8 * GIB, foreign_bytes: 0, overhead_bytes: 0, max_storage_buffer_range: 4 * GIB, alignment: 256, bandwidth_bytes_per_s: 0, driver: '', refused: '' }],
    ...changes,
  });

  // Dials as sim-001; `say` gets the observe stream to write to. Resolves with the socket.
  const agent = ({ hello = observed(), say = () => {}, raw } = {}) =>
    new Promise((resolve) => {
      const { key, cert, ca } = identities[0];
      const socket = tls.connect({ host: '127.0.0.1', port: Number(site.link.split(':')[1]), key, cert, ca, ALPNProtocols: ['aiv-node/1'], checkServerIdentity: () => undefined });
      sockets.push(socket);
      socket.gone = new Promise((done) => socket.once('close', done));
      socket.on('error', () => {});
      socket.once('secureConnect', () => {
        if (raw) {
          socket.resume(); // or its end would never be noticed
          raw(socket);
          resolve(socket);
          return;
        }
        const session = http2.performServerHandshake(socket);
        session.on('error', () => {});
        session.on('stream', (stream, headers) => {
          stream.on('error', () => {});
          if (headers[':path'] === '/node/v1/hello') {
            stream.respond({ ':status': 200 });
            if (typeof hello === 'function') hello(stream);
            else stream.end(JSON.stringify(hello));
          } else if (headers[':path'] === '/node/v1/observe') {
            stream.respond({ ':status': 200 });
            say((document) => stream.write(typeof document === 'string' ? document : `${JSON.stringify({ type: 'observed', document })}\n`), stream);
          } else {
            stream.respond({ ':status': 200 });
            stream.end('{}');
          }
        });
        resolve(socket);
      });
    });

  const logs = () => fs.readdirSync(path.join(site.data, 'logs')).map((file) => fs.readFileSync(path.join(site.data, 'logs', file), 'utf8')).join('') + site.logOf(site.server);
  const events = async (kind) => (await site.api('events')).items.filter((event) => event.kind === kind);
  const test = (title, body) =>
    it(title, { timeout: 120_000 }, async () => {
      try {
        await body();
        const good = await site.api('nodes/good');
        assert.equal(good.state, 'ready');
      } catch (error) {
        site.printLogs();
        throw error;
      }
    });

  test('who greets as another node is sent away, and the other keeps its link', async () => {
    const { incarnation } = await site.api('nodes/good');
    const socket = await agent({ hello: observed({ node: 'good' }) });
    await socket.gone;
    await waitFor('it is told', async () => (await events('node.link_refused')).some((event) => /sim-001/.test(event.subject) && /good/.test(event.reason)), WAIT);
    assert.equal((await site.api('nodes/good')).incarnation, incarnation);
  });

  test("reports of another node's things, unknown words and absurd sizes are refused by field, and change nothing", async () => {
    const device = observed().devices[0];
    const wrong = [
      [observed({ node: 'good' }), /node: is not the node of this link/],
      [observed({ devices: [{ ...device, id: 'good/0' }] }), /devices\[0\]\.id/],
      [observed({ devices: [{ ...device, vram_bytes: 2 ** 50 }] }), /devices\[0\]\.vram_bytes/],
      [observed({ devices: [device, device] }), /devices\[1\]\.id: appears twice/],
      [observed({ devices: Array.from({ length: 65 }, (_, i) => ({ ...device, id: `sim-001/${i}` })) }), /devices: has more than 64 entries/],
      [observed({ devices: [{ ...device, kind: 'quantum' }] }), /devices\[0\]\.kind: has an unknown value/],
      [observed({ replicas: [{ id: 'r', deployment: 'd', state: 'dreaming' }] }), /replicas\[0\]\.state: has an unknown value/],
    ];
    let tell;
    const socket = await agent({ say: (write) => (tell = write) });
    await waitFor('it is observed', () => tell, WAIT);
    for (const [document] of wrong) tell(document);
    tell('{"type":"observed","document":[]}\n{"type":"observed"}\nnot json\n[]\n{"type":"nonsense"}\n');
    for (const [, words] of wrong) await waitFor(`refused: ${words}`, () => logs().split('\n').some((line) => line.includes('node.document_refused') && words.test(line)), WAIT);
    // A sound report after all that is taken as if nothing had been.
    tell(observed({ seq: 7 }));
    await site.waitForNode('sim-001', 'ready', 40_000);
    assert.deepEqual((await site.api('nodes/good')).devices.map((each) => each.id), ['good/0']);
    // News of an earlier moment of the same life are old news.
    tell(observed({ seq: 3, devices: [] }));
    tell('{"type":"heartbeat","seq":1,"lag_ms":0,"observed_seq":7}\n');
    await waitFor('its heartbeat is heard', async () => (await site.api('nodes/sim-001')).state === 'ready', WAIT);
    assert.equal((await site.api('nodes/sim-001')).devices.length, 1);
    // So is all that is said of a life of the agent before this one, however new its number looks.
    tell(observed({ incarnation: '00000000000000bb', seq: 1 }));
    await waitFor('the new life is taken', async () => (await site.api('nodes/sim-001')).incarnation === String(0xbb), WAIT);
    tell(observed({ seq: 99, devices: [] }));
    tell(observed({ incarnation: '00000000000000bb', seq: 2, agent_version: 'after' }));
    await waitFor('what came after the replay is taken', async () => (await site.api('nodes/sim-001')).agent_version === 'after', WAIT);
    const now = await site.api('nodes/sim-001');
    assert.equal(now.incarnation, String(0xbb));
    assert.equal(now.devices.length, 1, 'the replay changed nothing');
    socket.destroy();
  });

  // Writes up to a GiB as fast as it is taken. Resolves with the bytes that were sent when the other end had enough.
  const pour = (stream) =>
    new Promise((resolve) => {
      const piece = Buffer.alloc(256 * 1024, 'x');
      let sent = 0;
      stream.once('close', () => resolve(sent));
      const more = () => {
        while (!stream.destroyed && sent < GIB) {
          sent += piece.length;
          if (!stream.write(piece)) return stream.once('drain', more);
        }
        if (!stream.destroyed) stream.end();
      };
      more();
    });
  // The most memory that any process of the server has had so far, in bytes.
  const peak = () =>
    Math.max(...processesOf(site.data).filter(({ pid }) => fs.existsSync(`/proc/${pid}/status`)).map(({ pid }) => 1024 * Number(/VmHWM:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)));

  test('a greeting and a line of a GiB are cut off early, in bounded memory; a frame without measure and noise end that link', async () => {
    const before = peak();
    assert.ok(before > 2 ** 20, 'its processes were found');
    const cut = async (what, options) => {
      let ended;
      const socket = await agent(options((stream) => (ended ??= pour(stream))));
      const sent = await waitFor(`${what} is cut off`, () => ended?.then((bytes) => ({ bytes })), { timeoutMs: 90_000 });
      assert.ok(sent.bytes < 64 * 2 ** 20, `${what}: ${sent.bytes} bytes were taken`);
      socket.destroy();
      await socket.gone;
    };
    await cut('the line', (poured) => ({ say: (_, stream) => poured(stream) }));
    assert.match(logs(), /line_too_long/);
    await cut('the greeting', (poured) => ({ hello: poured }));
    assert.ok(peak() < before + 64 * 2 ** 20, `${before} bytes before, ${peak()} at the most`);
    const preface = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]); // SETTINGS, empty
    const huge = Buffer.from([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]); // DATA of 16 MiB on stream 1
    const oversized = await agent({ raw: (socket) => socket.write(Buffer.concat([preface, huge, Buffer.alloc(1 << 16)])) });
    await oversized.gone;
    const noise = await agent({ raw: (socket) => socket.write(Buffer.alloc(1 << 16, 'GET / HTTP/1.1\r\n')) });
    await noise.gone;
  });
});
