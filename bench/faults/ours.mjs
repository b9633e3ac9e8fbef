// AIvailable as the fault run sees it: a server and nodes with agents of their own, each behind a wire that can be cut.
import { isAlive, killHard, processesOf, commandOf, startTimeOf, stopProcess } from '../../tests/e2e/lib/processes.mjs';
import { Site } from '../../tests/e2e/lib/site.mjs';
import { sleep, waitFor } from '../../tests/e2e/lib/wait.mjs';
import { Wire } from './cutter.mjs';

export const MODEL = 'fake-small';
export const STOPPED_MS = 15_000;
export const CUT_MS = 20_000;
export const DOWN_MS = 5_000;
const RESTART_MS = 200; // what a service manager takes to start an agent again

export class Ours {
  static name = 'AIvailable';

  static async start({ nodes, replicas, slots }) {
    const ours = new Ours();
    ours.replicaCount = replicas;
    ours.site = await Site.start();
    ours.nodes = Array.from({ length: nodes }, (_, i) => `n${i + 1}`);
    ours.wires = new Map();
    try {
      const [, linkPort] = ours.site.link.split(':');
      const line = await ours.site.token('--uses', '100');
      for (const node of ours.nodes) {
        const wire = await Wire.open({ host: '127.0.0.1', port: Number(linkPort) });
        ours.wires.set(node, wire);
        ours.startAgent(node, line.replace(/127\.0\.0\.1:\d+/, `127.0.0.1:${wire.port}`));
      }
      for (const node of ours.nodes) await ours.site.waitForNode(node);
      const up = await ours.site.cli('up', MODEL, '--replicas', String(replicas), '--slots', String(slots));
      if (up.code !== 0) throw new Error(up.stderr);
      await ours.whole();
    } catch (error) {
      ours.site.printLogs();
      await ours.stop();
      throw error;
    }
    return ours;
  }

  get target() {
    return { url: this.site.url, key: this.site.key, model: MODEL };
  }

  startAgent(node, line = '') {
    const address = `127.0.0.1:${this.wires.get(node).port}`;
    return this.site.startNode(node, { line, args: line ? [] : ['--server', address] });
  }

  replicas = async () => (await this.site.api('replicas')).items.filter((r) => r.deployment === MODEL);
  nodeStates = async () => (await this.site.api('nodes')).items;

  // All nodes are heard, and exactly the wanted replicas are there and ready.
  whole(timeoutMs = 90_000) {
    return waitFor(
      'all nodes are up and all replicas ready',
      async () => {
        const replicas = await this.replicas();
        const nodes = await this.nodeStates();
        return nodes.every((n) => n.state === 'ready') && replicas.length === this.replicaCount && replicas.every((r) => r.state === 'ready') && nodes.length === this.nodes.length;
      },
      { timeoutMs, everyMs: 200 },
    );
  }

  async busiest() {
    const ready = (await this.replicas()).filter((r) => r.state === 'ready');
    return ready.sort((a, b) => b.slots_busy - a.slots_busy)[0];
  }

  async killAgent(node) {
    const run = this.site.nodes.get(node);
    await killHard(run.child.pid);
    await run.exited;
  }

  // Agent, shims and engines together, as when the power of a machine goes.
  async killNode(node) {
    const run = this.site.nodes.get(node);
    const processes = processesOf(this.site.nodeDir(node)).map(({ pid }) => ({ pid, start: startTimeOf(pid) }));
    for (const { pid } of processes) process.kill(pid, 'SIGKILL');
    const at = Date.now();
    await waitFor(`all processes of ${node} are gone`, () => processes.every(({ pid, start }) => !isAlive(pid) || startTimeOf(pid) !== start), { everyMs: 2 });
    await run.exited;
    return at;
  }

  controllerPid() {
    const found = processesOf(this.site.data).find(({ pid }) => commandOf(pid)[1] === 'controller-process');
    if (!found) throw new Error('no controller runs');
    return found.pid;
  }

  // Injects one fault, undoes it after its time, and returns when it began.
  async fault(kind) {
    const victim = await this.busiest();
    const at = Date.now();
    switch (kind) {
      case 'engine kill':
        await killHard(victim.pid);
        return at;
      case 'engine stop':
        await stopProcess(victim.pid);
        await sleep(STOPPED_MS);
        if (isAlive(victim.pid)) process.kill(victim.pid, 'SIGCONT');
        return at;
      case 'agent kill':
        await this.killAgent(victim.node);
        await sleep(RESTART_MS);
        this.startAgent(victim.node);
        return at;
      case 'node kill':
        await this.killNode(victim.node);
        await sleep(DOWN_MS);
        this.startAgent(victim.node);
        return at;
      case 'node cut': {
        const wire = this.wires.get(victim.node);
        const before = await wire.cut();
        await sleep(CUT_MS);
        if ((await wire.lost()) === before) throw new Error('the cut cut nothing');
        await wire.heal();
        return at;
      }
      case 'controller kill':
        await killHard(this.controllerPid());
        return at;
    }
    throw new Error(kind);
  }

  async metric(pattern) {
    const response = await fetch(`${this.site.url}/metrics`, { headers: { authorization: `Bearer ${this.site.key}` } });
    const text = await response.text();
    return [...text.matchAll(new RegExp(`^aivailable_${pattern} (\\d+)`, 'gm'))].reduce((sum, m) => sum + Number(m[1]), 0);
  }

  resumed = async () => ({
    toTheEnd: await this.metric('failovers_total\\{[^}]*phase="decode",result="recovered"\\}'),
    cut: await this.metric('failovers_total\\{[^}]*phase="decode",result="failed"\\}'),
  });

  async stop() {
    for (const run of this.site.nodes.values()) if (!run.status) run.child.kill('SIGCONT');
    await this.site.stop();
    for (const wire of this.wires.values()) await wire.close();
  }
}
