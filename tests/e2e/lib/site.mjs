// A server and nodes as on machines of their own: `aiv server` and `aiv node`, each with its own directory, joined with
// tokens. (`aiv dev` takes a shortcut: it makes the nodes' certificates itself.)
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { runCli } from './cluster.mjs';
import { aivBin } from './places.mjs';
import { isAlive, processesOf } from './processes.mjs';
import { waitFor, within } from './wait.mjs';

export class Site {
  // serverArgs: further flags of `aiv server`.
  static async start({ serverArgs = [] } = {}) {
    const site = new Site();
    site.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aivs-'));
    site.serverArgs = serverArgs;
    site.env = { ...process.env, AIV_TEST_MARK: crypto.randomUUID() };
    for (const name of ['AIV_SERVER', 'AIV_KEY']) delete site.env[name];
    site.nodes = new Map();
    site.listen = '127.0.0.1:0';
    site.link = '127.0.0.1:0';
    await site.startServer().catch(async (error) => {
      await site.stop();
      throw error;
    });
    return site;
  }

  get data() {
    return path.join(this.dir, 'server');
  }

  get key() {
    return fs.readFileSync(path.join(this.data, 'admin.key'), 'utf8').trim();
  }

  async startServer() {
    const args = ['server', '--data', this.data, '--listen', this.listen, '--link-listen', this.link, ...this.serverArgs];
    this.server = this.launch(args, path.join(this.dir, 'server.log'));
    const found = await waitFor(
      '`aiv server` prints its ready line',
      () => {
        if (this.server.status) throw new Error(`it ended: ${JSON.stringify(this.server.status)}`);
        return /^link (\d+)\nready (https?:\/\/(\S+))$/m.exec(this.server.stdout);
      },
      { timeoutMs: 30_000 },
    );
    this.link = `127.0.0.1:${found[1]}`;
    this.url = found[2];
    this.listen = found[3];
  }

  launch(args, log) {
    const out = fs.openSync(log, 'a');
    const child = spawn(aivBin, args, { stdio: ['ignore', 'pipe', out], env: this.env });
    fs.closeSync(out);
    const run = { child, args, log, stdout: '', status: null };
    child.stdout.on('data', (bytes) => (run.stdout += bytes));
    run.exited = new Promise((resolve) =>
      child.once('exit', (code, signal) => {
        run.status = { code, signal };
        resolve(run.status);
      }),
    );
    return run;
  }

  logOf(run) {
    return fs.existsSync(run.log) ? fs.readFileSync(run.log, 'utf8') : '';
  }

  nodeDir(name) {
    return path.join(this.dir, name);
  }

  // The arguments of an agent with fake GPUs; `line` is what `aiv token create` printed.
  nodeArgs(name, { line = '', id = name, gpus = 'A:8GiB', args = [] } = {}) {
    const words = line ? line.trim().split(/\s+/).slice(2) : [];
    const own = words.includes('--id') || !id ? [] : ['--id', id];
    return ['node', '--data', this.nodeDir(name), '--engine', 'fake', '--gpus', gpus, '--stop-engines', '--orphan-limit', '15s', ...words, ...own, ...args];
  }

  startNode(name, options = {}) {
    const run = this.launch(this.nodeArgs(name, options), path.join(this.dir, `${name}.log`));
    this.nodes.set(name, run);
    return run;
  }

  async token(...flags) {
    const made = await this.cli('token', 'create', ...flags);
    if (made.code !== 0) throw new Error(made.stderr);
    return made.stdout;
  }

  async api(route, { method = 'GET', body } = {}) {
    const response = await fetch(`${this.url}/aiv/v1/${route}`, {
      method,
      headers: { authorization: `Bearer ${this.key}`, ...(body ? { 'content-type': 'application/json' } : {}) },
      body: body ? JSON.stringify(body) : undefined,
    });
    const json = await response.json();
    if (!response.ok) throw Object.assign(new Error(`${method} ${route}: ${response.status} ${JSON.stringify(json)}`), { status: response.status, body: json });
    return json;
  }

  cli(...args) {
    return runCli(args, { env: { ...this.env, AIV_SERVER: this.url, AIV_KEY: this.key } });
  }

  waitForNode(id, state = 'ready', timeoutMs = 20_000) {
    return waitFor(`node ${id} is ${state}`, async () => (await this.api('nodes')).items.find((node) => node.id === id && node.state === state), { timeoutMs });
  }

  waitForEvent(kind, subject, timeoutMs = 15_000) {
    return waitFor(`event ${kind} of ${subject}`, async () => (await this.api('events')).items.find((event) => event.kind === kind && event.subject === subject), { timeoutMs });
  }

  async stopRun(run) {
    if (!run || run.status) return;
    run.child.kill('SIGTERM');
    await within(`${run.args[0]} ends after SIGTERM`, 40_000, run.exited).catch(() => run.child.kill('SIGKILL'));
  }

  async stop() {
    await Promise.all([...this.nodes.values()].map((run) => this.stopRun(run)));
    await this.stopRun(this.server);
    await waitFor('no process is left', () => processesOf(this.dir, `AIV_TEST_MARK=${this.env.AIV_TEST_MARK}`).length === 0, { timeoutMs: 20_000 }).catch(() => {});
    for (const { pid } of processesOf(this.dir, `AIV_TEST_MARK=${this.env.AIV_TEST_MARK}`)) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  printLogs() {
    for (const run of [this.server, ...this.nodes.values()].filter(Boolean)) console.error(`--- ${run.log} ---\n${this.logOf(run).slice(-12_000)}`);
    const logs = path.join(this.data, 'logs');
    if (fs.existsSync(logs)) for (const file of fs.readdirSync(logs)) console.error(`--- ${file} ---\n${fs.readFileSync(path.join(logs, file), 'utf8').slice(-12_000)}`);
  }
}
