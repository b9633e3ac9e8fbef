// A whole cluster for one test: `aiv dev` in a directory of its own, on a port the system chooses, ended by its
// number, with a check that nothing of it is left. When a test fails the logs of all parts are printed, merged by time
// where they carry one.
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import OpenAI from 'openai';
import { aivBin, engineDir } from './places.mjs';
import { commandOf, isAlive, processesOf } from './processes.mjs';
import { waitFor, within } from './wait.mjs';

const READY_TIMEOUT_MS = { fake: 30_000, llama: 120_000 };
const STOP_TIMEOUT_MS = 20_000;
const LOG_BYTES_SHOWN = 60_000;

export class ApiError extends Error {
  constructor(method, route, status, body) {
    super(`${method} ${route}: ${status} ${JSON.stringify(body).slice(0, 500)}`);
    this.status = status;
    this.body = body;
  }
}

export class Cluster {
  // gpus: as `aiv dev --gpus`; engine: "fake" or "llama"; args: further flags; env: further environment.
  static async start({ gpus, engine = 'fake', args = [], env = {} } = {}) {
    if (!aivBin) throw new Error('no aiv binary: build it, or set AIV_BIN');
    const cluster = new Cluster();
    cluster.engine = engine;
    // Short, because the path of a Unix socket has at most 107 bytes.
    cluster.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'aiv-'));
    cluster.mark = `AIV_TEST_MARK=${crypto.randomUUID()}`;
    cluster.args = ['dev', '--engine', engine, '--port', '0', '--data', cluster.dir, ...(gpus ? ['--gpus', gpus] : []), ...args];
    cluster.env = { ...process.env, ...(engineDir ? { AIV_ENGINE_DIR: engineDir } : {}), ...env };
    for (const name of ['AIV_SERVER', 'AIV_KEY']) delete cluster.env[name];
    cluster.env.AIV_TEST_MARK = cluster.mark.slice('AIV_TEST_MARK='.length);
    try {
      await cluster.launch();
    } catch (error) {
      cluster.printLogs();
      await cluster.stop().catch(() => {});
      throw error;
    }
    return cluster;
  }

  async launch() {
    this.output = '';
    this.process = spawn(aivBin, this.args, { stdio: ['ignore', 'pipe', 'pipe'], env: this.env });
    this.exited = new Promise((resolve) => this.process.once('exit', (code, signal) => resolve({ code, signal })));
    let stdout = '';
    this.process.stdout.on('data', (bytes) => {
      stdout += bytes;
      this.output += bytes;
    });
    this.process.stderr.on('data', (bytes) => (this.output += bytes));
    let gone = null;
    this.exited.then((status) => (gone = status));
    const line = await waitFor(
      '`aiv dev` prints its ready line',
      () => {
        if (gone) return { gone };
        return /^ready (http:\/\/\S+)$/m.exec(stdout);
      },
      { timeoutMs: READY_TIMEOUT_MS[this.engine] },
    );
    if (line.gone) throw new Error(`aiv dev ended before it was ready: ${JSON.stringify(line.gone)}\n${this.output}`);
    this.url = line[1];
    this.keyFile = path.join(this.dir, 'admin.key');
    this.key = fs.existsSync(this.keyFile) ? fs.readFileSync(this.keyFile, 'utf8').trim() : '';
  }

  // Our own API. Returns the parsed body; throws ApiError for anything but 2xx.
  async api(route, { method = 'GET', body, key = this.key } = {}) {
    const response = await this.fetch(`/aiv/v1/${route}`, { method, body, key });
    const text = await response.text();
    let parsed = text;
    try {
      parsed = JSON.parse(text);
    } catch {
      // Shown as it is.
    }
    if (!response.ok) throw new ApiError(method, route, response.status, parsed);
    return parsed;
  }

  async items(resource) {
    return (await this.api(resource)).items;
  }

  fetch(route, { method = 'GET', body, key = this.key, headers = {}, ...rest } = {}) {
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
    return fetch(this.url + route, {
      method,
      body: text,
      headers: {
        ...(key ? { authorization: `Bearer ${key}` } : {}),
        ...(text !== undefined ? { 'content-type': 'application/json' } : {}),
        ...headers,
      },
      ...rest,
    });
  }

  // The official client. No retries of its own, so that a test sees what happened.
  openai(options = {}) {
    return new OpenAI({ baseURL: `${this.url}/v1`, apiKey: this.key || 'none', maxRetries: 0, timeout: 60_000, ...options });
  }

  // Runs the command line against this cluster. Never throws for an exit code.
  async cli(...args) {
    const options = typeof args.at(-1) === 'object' ? args.pop() : {};
    const env = { ...this.env, AIV_SERVER: this.url, ...(options.env ?? {}) };
    if (options.key !== null) env.AIV_KEY = options.key ?? this.key;
    return runCli(args, { env, input: options.input, timeoutMs: options.timeoutMs });
  }

  replicas = async (deployment) => (await this.items('replicas')).filter((replica) => !deployment || replica.deployment === deployment);

  // The replica that answers just now, by the gateway's own count: what its node reported may be of the request
  // before. Undefined if none does, or if the one that did has ended and nobody has noticed yet.
  async answering(deployment) {
    const text = await (await this.fetch('/metrics')).text();
    const busy = [...text.matchAll(/^aivailable_replica_slots_busy\{.*replica="([^"]+)".*\} [1-9]/gm)].map((m) => m[1]);
    return (await this.replicas(deployment)).find((replica) => busy.includes(replica.id) && isAlive(replica.pid));
  }

  // A replica keeps the state its node last reported: only on a node that is ready, and with a living engine, is it
  // what it says.
  waitForReplicas(deployment, count, timeoutMs = 30_000) {
    return waitFor(
      `${count} ready replicas of ${deployment}`,
      async () => {
        const heard = new Set((await this.items('nodes')).filter((node) => node.state === 'ready').map((node) => node.id));
        const ready = (await this.replicas(deployment)).filter((replica) => replica.state === 'ready' && heard.has(replica.node) && isAlive(replica.pid));
        return ready.length === count ? ready : null;
      },
      { timeoutMs },
    );
  }

  // The agent's own process (not its shims or engines).
  agentPid(node) {
    const found = this.processes().filter(({ pid }) => {
      const command = commandOf(pid);
      return command[1] === 'node' && command.some((word) => word === node || word.includes(`/nodes/${node}`));
    });
    if (found.length !== 1) throw new Error(`${found.length} agents of ${node}: ${JSON.stringify(this.processes(), null, 1)}`);
    return found[0].pid;
  }

  processes() {
    return processesOf(this.dir, this.mark);
  }

  // Ends the cluster as a person would, and checks that no process is left.
  async stop() {
    if (this.process && this.process.exitCode === null && this.process.signalCode === null) this.process.kill('SIGTERM');
    let problem = null;
    if (this.process) {
      const status = await within('`aiv dev` ends after SIGTERM', STOP_TIMEOUT_MS, this.exited).catch((error) => (problem = error));
      if (!problem && status.code !== 0) problem = new Error(`aiv dev ended with ${JSON.stringify(status)}`);
    }
    await waitFor('no process is left', () => this.processes().length === 0, { timeoutMs: 3000 }).catch(() => {
      problem ??= new Error(`processes were left behind:\n${this.processes().map((p) => `${p.pid} ${p.command}`).join('\n')}`);
    });
    for (const { pid } of this.processes()) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    if (problem) {
      this.printLogs();
      throw problem;
    }
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  // All logs of the cluster, each line with its part, in the order of their times.
  logs() {
    const lines = this.output.split('\n').map((text) => ({ part: 'dev', text }));
    const visit = (directory) => {
      for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
        const full = path.join(directory, entry.name);
        if (entry.isDirectory()) visit(full);
        else if (/\.log(\.1)?$|^(head\.log|state|exit)$/.test(entry.name) && entry.isFile())
          for (const text of fs.readFileSync(full, 'utf8').split('\n')) lines.push({ part: path.relative(this.dir, full), text });
      }
    };
    if (fs.existsSync(this.dir)) visit(this.dir);
    let last = '';
    for (const line of lines) line.time = last = /\d{4}-\d\d-\d\dT[\d:.]+Z?/.exec(line.text)?.[0] ?? (line.part === 'dev' ? last : `~${line.part}`);
    // The questions that a waiting test repeats would crowd out what happened.
    const asked = ({ part, text }) => part.endsWith('access.log') && /"method":"GET","path":"\/aiv\/v1\/[^"]*","status":200/.test(text);
    return lines
      .filter((line) => line.text && !asked(line))
      .sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0))
      .map((line) => `${line.part.padEnd(24)} ${line.text}`)
      .join('\n');
  }

  printLogs() {
    const text = this.logs();
    console.error(`--- logs of ${this.dir} ---\n${text.length > LOG_BYTES_SHOWN ? `...${text.slice(-LOG_BYTES_SHOWN)}` : text}\n--- end of logs ---`);
  }
}

// Runs `aiv` and collects what it says.
export async function runCli(args, { env = process.env, input = '', timeoutMs = 60_000 } = {}) {
  const child = spawn(aivBin, args, { stdio: ['pipe', 'pipe', 'pipe'], env });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (bytes) => (stdout += bytes));
  child.stderr.on('data', (bytes) => (stderr += bytes));
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const ended = new Promise((resolve) => child.once('close', (code, signal) => resolve({ code, signal })));
  try {
    const { code, signal } = await within(`aiv ${args.join(' ')}`, timeoutMs, ended);
    return { code, signal, stdout, stderr };
  } catch (error) {
    child.kill('SIGKILL');
    throw new Error(`${error.message}\nstdout: ${stdout}\nstderr: ${stderr}`);
  }
}
