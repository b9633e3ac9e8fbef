// The set-up of the paper as the fault run sees it: HAProxy before the same engines, which a service manager starts again.
// Its checks are the ones that are usual (every 2 s, down after 3), and it may repeat whatever HAProxy can repeat.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { aivBin } from '../../tests/e2e/lib/places.mjs';
import { isAlive, killHard, stopProcess } from '../../tests/e2e/lib/processes.mjs';
import { sleep, waitFor } from '../../tests/e2e/lib/wait.mjs';
import { Wire } from './cutter.mjs';
import { CUT_MS, DOWN_MS, MODEL, STOPPED_MS } from './ours.mjs';

const RESTART_MS = 200;
const CTX = 65_536;
const program = ['/usr/sbin/haproxy', '/usr/local/sbin/haproxy'].find((file) => fs.existsSync(file));

export const CONFIGURATION = (port, stats, servers) => `
global
  nbthread 1
  stats socket ${stats} mode 600 level user
defaults
  mode http
  option http-no-delay
  option redispatch 1
  retries 3
  retry-on all-retryable-errors
  timeout connect 1s
  timeout check 1s
  timeout client 60s
  timeout server 10s
frontend clients
  bind 127.0.0.1:${port}
  default_backend engines
backend engines
  balance leastconn
  option httpchk GET /health
  default-server inter 2s fall 3 rise 2 on-marked-down shutdown-sessions
${servers.map((address, i) => `  server s${i} ${address} check`).join('\n')}
`;

export class Haproxy {
  static name = 'HAProxy';
  static available = Boolean(program);

  static async start({ replicas, slots }) {
    const rival = new Haproxy();
    rival.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aivh-'));
    rival.slots = slots;
    rival.engines = [];
    try {
      for (let i = 0; i < replicas; ++i) {
        rival.engines.push({ socket: path.join(rival.dir, `e${i}.sock`), wire: null, child: null, held: false });
        rival.startEngine(rival.engines[i]);
        rival.engines[i].wire = await Wire.open({ path: rival.engines[i].socket });
      }
      rival.port = await freePort();
      rival.stats = path.join(rival.dir, 'stats.sock');
      const file = path.join(rival.dir, 'haproxy.cfg');
      fs.writeFileSync(file, CONFIGURATION(rival.port, rival.stats, rival.engines.map((e) => `127.0.0.1:${e.wire.port}`)));
      rival.process = spawn(program, ['-f', file, '-q'], { stdio: ['ignore', 'ignore', fs.openSync(path.join(rival.dir, 'haproxy.log'), 'a')] });
      await rival.whole();
    } catch (error) {
      await rival.stop();
      throw error;
    }
    return rival;
  }

  get target() {
    return { url: `http://127.0.0.1:${this.port}`, key: '', model: MODEL };
  }

  startEngine(engine) {
    fs.rmSync(engine.socket, { force: true });
    const args = ['-m', `fake:${MODEL}`, '--host', engine.socket, '-dev', 'Fake0', '-np', String(this.slots), '-c', String(CTX), '--no-kv-unified', '-lv', '1'];
    const child = spawn(path.join(path.dirname(aivBin), 'aiv-fake-engine'), args, { stdio: 'ignore', env: {} });
    engine.child = child;
    child.once('exit', () => {
      if (engine.child === child && !engine.held && !this.stopped) setTimeout(() => this.stopped || this.startEngine(engine), RESTART_MS);
    });
  }

  // [{name, current sessions, status}]
  async servers() {
    const text = await ask(this.stats, 'show stat -1 4 -1\n');
    return text.trim().split('\n').slice(1).map((line) => line.split(',')).map((f) => ({ name: f[1], sessions: Number(f[4]), status: f[17] }));
  }

  whole(timeoutMs = 60_000) {
    return waitFor('HAProxy finds all engines up', async () => {
      const servers = await this.servers();
      return servers.length === this.engines.length && servers.every((s) => s.status === 'UP');
    }, { timeoutMs, everyMs: 200 });
  }

  async fault(kind) {
    const servers = await this.servers();
    const busiest = servers.reduce((best, s, i) => (s.sessions > servers[best].sessions ? i : best), 0);
    const engine = this.engines[busiest];
    const { pid } = engine.child;
    const at = Date.now();
    switch (kind) {
      case 'engine kill':
        await killHard(pid);
        return at;
      case 'engine stop':
        await stopProcess(pid);
        await sleep(STOPPED_MS);
        if (isAlive(pid)) process.kill(pid, 'SIGCONT');
        return at;
      case 'node kill':
        engine.held = true;
        await killHard(pid);
        await sleep(DOWN_MS);
        engine.held = false;
        this.startEngine(engine);
        return at;
      case 'node cut':
        await engine.wire.cut();
        await sleep(CUT_MS);
        await engine.wire.heal();
        return at;
    }
    return null; // it has no such part
  }

  resumed = async () => ({ toTheEnd: 0, cut: 0 });

  async stop() {
    this.stopped = true;
    const children = [this.process, ...this.engines.map((e) => e.child)].filter((c) => c && c.exitCode === null && c.signalCode === null);
    for (const child of children) {
      child.kill('SIGCONT');
      child.kill('SIGKILL');
    }
    for (const engine of this.engines) await engine.wire?.close();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function ask(socket, line) {
  return new Promise((resolve, reject) => {
    let text = '';
    const connection = net.connect({ path: socket }, () => connection.write(line));
    connection.on('data', (bytes) => (text += bytes));
    connection.once('end', () => resolve(text));
    connection.once('error', reject);
  });
}
