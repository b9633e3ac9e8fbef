/** The fields of /aiv/v1 this page reads. Anything but an id may be missing on an older server. */
export interface ModelEntry {
  id: string;
  owned_by?: string;
}

export interface NodeEntry {
  id: string;
  state?: string;
  reason?: string;
  failure_domain?: string;
  engine?: string;
}

export interface Device {
  id: string;
  node?: string;
  name?: string;
  backend?: string;
  kind?: string;
  vram_bytes?: number;
  free_bytes?: number;
  foreign_bytes?: number;
  refused?: string;
}

export interface ReplicaDevice {
  id: string;
  bytes?: number;
  weights?: number;
  kv?: number;
  /** Where the server knows how much of the cache holds tokens; else the whole of it counts as reserved. */
  kv_used?: number;
  compute?: number;
}

export interface Replica {
  id: string;
  deployment?: string;
  model?: string;
  node?: string;
  devices?: ReplicaDevice[];
  state?: string;
  reason?: string;
  progress?: number;
  slots?: number;
  slots_busy?: number;
}

export interface Deployment {
  name: string;
  model?: string;
  replicas?: { min?: number; max?: number; ready?: number };
  ctx?: number;
  slots?: number;
  state?: string;
  reason?: string;
  survives_node_loss?: boolean;
}
