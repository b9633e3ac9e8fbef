/**
 * Where a card's memory went: the segments of one GPU's bar. All figures are bytes. Whatever the server reports,
 * the segments add up to exactly the size of the card; what does not fit in is reported, not drawn.
 */
import type { Device, Replica } from './types';

export type SegmentKind = 'weights' | 'kv_used' | 'kv_reserved' | 'compute' | 'foreign' | 'free';

export interface Segment {
  kind: SegmentKind;
  bytes: number;
  /** Deployment the memory belongs to; empty for foreign and free. */
  owner: string;
  replica: string;
  /** The replica is promised this memory and does not hold it yet. */
  planned: boolean;
}

export interface DeviceUse {
  total: number;
  segments: Segment[];
  /** Held or promised by our replicas. */
  ours: number;
  foreign: number;
  free: number;
  /** By how much the reports exceed the card; 0 when all is well. */
  overfull: number;
}

const HOLDS_MEMORY = new Set(['pending', 'loading', 'ready', 'draining']);

/** A byte count as reported: a whole number, never negative; nonsense counts as 0. */
export function bytesOf(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? Math.floor(value) : 0;
}

export function ownerOf(replica: Replica): string {
  return replica.deployment || replica.model || replica.id;
}

/** The parts of what one replica holds on one device, in the bar's order. */
function partsOf(replica: Replica, deviceId: string): Segment[] {
  const segments: Segment[] = [];
  const planned = replica.state === 'pending';
  const add = (kind: SegmentKind, bytes: number) => {
    if (bytes > 0) segments.push({ kind, bytes, owner: ownerOf(replica), replica: replica.id, planned });
  };
  for (const part of replica.devices ?? []) {
    if (part.id !== deviceId) continue;
    const weights = bytesOf(part.weights);
    const kv = bytesOf(part.kv);
    const compute = bytesOf(part.compute);
    const whole = bytesOf(part.bytes);
    const known = weights + kv + compute;
    const used = Math.min(bytesOf(part.kv_used), kv);
    // Without a breakdown all of it is drawn as weights; what exceeds the known parts is the driver's context,
    // which comes and goes with the process as its compute buffers do.
    add('weights', known === 0 ? whole : weights);
    add('kv_used', used);
    add('kv_reserved', kv - used);
    add('compute', known === 0 ? 0 : compute + Math.max(0, whole - known));
  }
  return segments;
}

/** Replicas are drawn in order of their id, so that a bar does not change when a list does. */
export function useOf(device: Device, replicas: readonly Replica[]): DeviceUse {
  const total = bytesOf(device.vram_bytes);
  const wanted: Segment[] = [];
  for (const replica of [...replicas].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))) {
    if (HOLDS_MEMORY.has(replica.state ?? '')) wanted.push(...partsOf(replica, device.id));
  }
  const ours = wanted.reduce((sum, s) => sum + s.bytes, 0);
  const foreign = bytesOf(device.foreign_bytes);
  if (foreign > 0) wanted.push({ kind: 'foreign', bytes: foreign, owner: '', replica: '', planned: false });

  const segments: Segment[] = [];
  let left = total;
  for (const segment of wanted) {
    const bytes = Math.min(segment.bytes, left);
    if (bytes > 0) segments.push({ ...segment, bytes });
    left -= bytes;
  }
  if (left > 0) segments.push({ kind: 'free', bytes: left, owner: '', replica: '', planned: false });
  return { total, segments, ours, foreign, free: left, overfull: Math.max(0, ours + foreign - total) };
}

/** Sum per kind, for the table and for the label. */
export function totalsOf(use: DeviceUse): Record<SegmentKind, number> {
  const totals: Record<SegmentKind, number> = {
    weights: 0, kv_used: 0, kv_reserved: 0, compute: 0, foreign: 0, free: 0,
  };
  for (const segment of use.segments) totals[segment.kind] += segment.bytes;
  return totals;
}

/**
 * Pixels per GiB, one figure for the whole page so that any two bars can be compared. The widest node fills the
 * row; but no card is drawn narrower than `narrowest` px as long as the largest still fits the row (then a node's
 * bars wrap). Returns 0 where there is nothing to draw.
 */
export function pixelsPerGib(nodes: readonly number[][], row: number, gap: number, narrowest: number): number {
  const cards = nodes.flat().filter((gib) => gib > 0);
  if (cards.length === 0 || row <= 0) return 0;
  const fits = Math.min(
    ...nodes
      .filter((node) => node.some((gib) => gib > 0))
      // One pixel less: a row's true width may be a fraction below its whole number.
      .map((node) => Math.max(0, row - 1 - gap * (node.length - 1)) / node.reduce((sum, gib) => sum + gib, 0)),
  );
  const largest = row / Math.max(...cards);
  const legible = narrowest / Math.min(...cards);
  return Math.min(largest, Math.max(fits, legible));
}
