// Simulated agents: they speak the node protocol over mTLS as real ones do (dial, then serve HTTP/2), report one fake GPU each,
// and say "ready" of whatever they are told to run. Many of them fit into one process, so that a server can be put under the
// load of a large lab: one of their own, so that what they cost is not taken for what the server costs. Their certificates are
// signed with the key of the test server's own authority.
import { execFileSync, fork } from 'node:child_process';
import fs from 'node:fs';
import http2 from 'node:http2';
import path from 'node:path';
import tls from 'node:tls';
import { fileURLToPath } from 'node:url';

const HEARTBEAT_MS = 250;
const WHOLE_MS = 5000;
const GIB = 2 ** 30;
// As an agent does it: 50 ms, doubled up to a second, and anywhere within it.
const RECONNECT_FIRST_MS = 50;
const RECONNECT_MAX_MS = 1000;

function certificates(dataDir, folder, names) {
  const ca = path.join(dataDir, 'ca');
  const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  fs.mkdirSync(folder, { recursive: true });
  const key = path.join(folder, 'key.pem');
  const request = path.join(folder, 'request.pem');
  openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', key);
  openssl('req', '-new', '-key', key, '-subj', '/CN=node', '-out', request);
  const uri = /URI:aiv:\/\/([^/]+)\//.exec(openssl('x509', '-in', path.join(ca, 'server.pem'), '-noout', '-ext', 'subjectAltName').toString());
  return names.map((name) => {
    const extension = path.join(folder, 'ext');
    fs.writeFileSync(extension, `subjectAltName=URI:aiv://${uri[1]}/node/${name}\nextendedKeyUsage=clientAuth,serverAuth\nkeyUsage=digitalSignature\n`);
    const cert = openssl('x509', '-req', '-in', request, '-CA', path.join(ca, 'ca.pem'), '-CAkey', path.join(ca, 'ca.key'), '-days', '2', '-extfile', extension);
    return { name, key: fs.readFileSync(key), cert, ca: fs.readFileSync(path.join(ca, 'ca.pem')) };
  });
}

class Agent {
  constructor(identity, port, gpus) {
    this.identity = identity;
    this.port = port;
    this.version = { epoch: 0, rev: 0 };
    this.replicas = [];
    this.seq = 1;
    this.incarnation = Math.floor(Math.random() * 2 ** 48).toString(16).padStart(16, '0');
    this.devices = Array.from({ length: gpus }, (_, i) => ({
      id: `${identity.name}/${i}`, uuid: `${identity.name}-${i}`, name: 'Simulated', backend: 'fake', kind: 'gpu', vram_bytes: 8 * GIB, free_bytes: 8 * GIB, foreign_bytes: 0,
      overhead_bytes: 0, max_storage_buffer_range: 4 * GIB, alignment: 256, bandwidth_bytes_per_s: 0, driver: '', refused: '',
    }));
    this.gaps = [];
    this.backoff = 0;
    this.dial();
  }

  dial() {
    const { name, ...files } = this.identity;
    // The server is known by its authority; its certificate names a cluster, not a host.
    this.socket = tls.connect({ host: '127.0.0.1', port: this.port, ...files, ALPNProtocols: ['aiv-node/1'], checkServerIdentity: () => undefined });
    this.socket.once('secureConnect', () => {
      this.backoff = 0;
      const session = http2.performServerHandshake(this.socket);
      session.on('stream', (stream, headers) => this.serve(stream, headers[':method'], headers[':path']));
      session.on('error', () => {});
    });
    this.socket.on('error', () => {});
    this.socket.once('close', () => {
      this.backoff = this.backoff ? Math.min(2 * this.backoff, RECONNECT_MAX_MS) : RECONNECT_FIRST_MS;
      setTimeout(() => this.dial(), this.backoff * Math.random());
    });
  }

  observed() {
    return {
      node: this.identity.name, boot_id: 'boot', incarnation: this.incarnation, seq: this.seq, applied: this.version, agent_version: 'sim', engine: 'fake',
      devices: this.devices, replicas: this.replicas,
    };
  }

  serve(stream, method, route) {
    stream.on('error', () => {});
    const json = (status, body) => {
      stream.respond({ ':status': status, 'content-type': 'application/json' });
      stream.end(JSON.stringify(body));
    };
    if (route === '/node/v1/hello') return json(200, this.observed());
    if (route === '/node/v1/observe') return this.observe(stream);
    if (route.endsWith('/v1/chat/completions')) return this.answer(stream);
    if (route === '/node/v1/desired' && method === 'PUT') {
      let text = '';
      stream.setEncoding('utf8').on('data', (part) => (text += part));
      stream.on('end', () => {
        const desired = JSON.parse(text);
        this.version = desired.version;
        this.replicas = desired.replicas.map((spec) => ({
          id: spec.id, deployment: spec.deployment, model: spec.model, spec_hash: '', state: 'ready', reason: '', out_of_memory: false, progress: 1, pid: 1000, started_at_ms: Date.now(),
          slots: spec.slots, slots_busy: 0, endpoint: '', measured: spec.devices, restarts: 0,
        }));
        this.seq += 1;
        this.tell?.();
        json(200, { applied: this.version });
      });
      return undefined;
    }
    return json(404, { error: { message: 'a simulated agent has no such route' } });
  }

  // One word, as an engine would say it.
  answer(stream) {
    stream.resume();
    stream.respond({ ':status': 200, 'content-type': 'text/event-stream' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'aiv-end': 'complete' }));
    const chunk = (delta, finish) => `data: ${JSON.stringify({ id: 'x', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;
    stream.end(`${chunk({ role: 'assistant', content: 'yes' }, null)}${chunk({}, 'stop')}data: [DONE]\n\n`);
  }

  observe(stream) {
    stream.respond({ ':status': 200 });
    let beat = 0;
    let last = 0;
    let whole = 0;
    this.tell = () => {
      stream.write(`${JSON.stringify({ type: 'observed', document: this.observed() })}\n`);
      whole = Date.now();
    };
    this.tell();
    const timer = setInterval(() => {
      const now = performance.now();
      if (last) this.gaps.push(now - last);
      last = now;
      beat += 1;
      stream.write(`${JSON.stringify({ type: 'heartbeat', seq: beat, lag_ms: 0, observed_seq: this.seq })}\n`);
      if (Date.now() - whole >= WHOLE_MS) this.tell();
    }, HEARTBEAT_MS);
    stream.once('close', () => clearInterval(timer));
  }
}

// Keys and certificates of `count` agents; takes a while.
export function makeIdentities({ dataDir, folder, count }) {
  return certificates(dataDir, folder, Array.from({ length: count }, (_, i) => `sim-${String(i + 1).padStart(3, '0')}`));
}

// The agents as a process of their own.
export class Agents {
  static async start({ identities, linkPort, gpus = 1 }) {
    const agents = new Agents();
    agents.child = fork(fileURLToPath(import.meta.url), ['agents-process'], { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    agents.exited = new Promise((resolve) => agents.child.once('exit', resolve));
    agents.child.send({ start: { identities, linkPort, gpus } });
    return agents;
  }

  // The gaps between heartbeats since the last call, ms.
  gaps() {
    const answer = new Promise((resolve) => this.child.once('message', resolve));
    this.child.send({ gaps: true });
    return answer;
  }

  async stop() {
    this.child.kill('SIGTERM');
    await this.exited;
  }
}

if (process.argv[2] === 'agents-process') {
  let agents = [];
  process.on('message', (message) => {
    if (message.start) agents = message.start.identities.map((identity) => new Agent({ ...identity, key: Buffer.from(identity.key), cert: Buffer.from(identity.cert), ca: Buffer.from(identity.ca) }, message.start.linkPort, message.start.gpus));
    if (message.gaps) {
      process.send(agents.flatMap((agent) => agent.gaps));
      for (const agent of agents) agent.gaps = [];
    }
  });
  // Whoever started us is gone: so are we.
  process.on('disconnect', () => process.exit(0));
}
