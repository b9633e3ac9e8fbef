/**
 * What the controller says about the cluster, fetched anew each two seconds while a page shows it and the tab is
 * visible. On a failure the last picture stays, with its age, and `problem` says why: never old figures that look
 * live.
 */
import { listDeployments, listDevices, listModels, listNodes, listReplicas, wantsKey } from './api';
import { ApiError } from './errors';
import { user } from './session.svelte';
import type { Deployment, Device, ModelEntry, NodeEntry, Replica } from './types';

export const POLL_MS = 2000;

class Cluster {
  nodes = $state.raw<NodeEntry[]>([]);
  devices = $state.raw<Device[]>([]);
  deployments = $state.raw<Deployment[]>([]);
  replicas = $state.raw<Replica[]>([]);
  models = $state.raw<ModelEntry[]>([]);
  /** When the picture was taken, by Date.now(); 0 = never. */
  takenAt = $state(0);
  modelsAt = $state(0);
  problem = $state.raw<ApiError | null>(null);
  /** This key may chat but not look at the cluster. */
  forbidden = $state(false);
  now = $state(Date.now());

  private watchers = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private running = false;
  private asked = false;

  constructor() {
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.soon();
    });
  }

  /** Keeps the picture fresh until the returned function is called. */
  watch(): () => void {
    this.watchers++;
    this.soon();
    return () => {
      this.watchers--;
      if (this.watchers === 0) clearTimeout(this.timer);
    };
  }

  /** Fetches at once, e.g. after a key was entered. */
  soon(): void {
    clearTimeout(this.timer);
    if (this.watchers > 0 && !this.running) void this.round();
  }

  private async round(): Promise<void> {
    this.running = true;
    // Asked once, so that a visitor without a key meets the question for it and not a row of refused requests.
    if (!this.asked && user.key === '') {
      this.asked = true;
      if (await wantsKey()) user.refuseKey();
    }
    if (!document.hidden && !user.keyWanted) {
      await this.fetchAll();
      this.now = Date.now();
    }
    this.running = false;
    if (this.watchers > 0) this.timer = setTimeout(() => void this.round(), POLL_MS);
  }

  private async fetchAll(): Promise<void> {
    try {
      // What the controller knows first: the choice of a model looks at which of them are ready. A failure there
      // must not take the models away, the gateway serves without a controller.
      const models = listModels();
      const picture = this.forbidden ? Promise.resolve() : this.fetchPicture();
      const [pictured, named] = await Promise.allSettled([picture, models]);
      if (named.status === 'fulfilled') {
        this.models = named.value;
        this.modelsAt = Date.now();
      }
      for (const result of [named, pictured]) if (result.status === 'rejected') throw result.reason;
      this.problem = null;
    } catch (error) {
      if (!(error instanceof ApiError)) {
        this.problem = new ApiError(0, 'The server answered with something unreadable', String(error), '');
      } else if (error.status === 401) {
        user.refuseKey();
      } else if (error.status === 403) {
        this.forbidden = true;
        this.problem = null;
      } else {
        this.problem = error;
      }
    }
  }

  private async fetchPicture(): Promise<void> {
    const [nodes, devices, deployments, replicas] = await Promise.all([
      listNodes(), listDevices(), listDeployments(), listReplicas(),
    ]);
    this.nodes = nodes.items;
    this.devices = devices.items;
    this.deployments = deployments.items;
    this.replicas = replicas.items;
    this.takenAt = Date.now();
  }
}

export const cluster = new Cluster();
