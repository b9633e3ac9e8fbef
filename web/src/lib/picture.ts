/** The lists of /aiv/v1 put together for drawing: nodes in order of id, their devices in order of index. */
import type { Device, NodeEntry, Replica } from './types';
import { useOf, type DeviceUse } from './vram';

/**
 * The same object as long as nothing in it changed, so that a poll of a large cluster redraws only the bars it must.
 */
export interface DevicePicture {
  device: Device;
  use: DeviceUse;
  replicas: Replica[];
}

export interface NodePicture {
  node: NodeEntry;
  devices: DevicePicture[];
}

const byId = new Intl.Collator('en', { numeric: true }).compare;

export function nodeOf(device: Device): string {
  return device.node || device.id.slice(0, Math.max(0, device.id.lastIndexOf('/')));
}

/** What was drawn last, by device id. */
export type Drawn = Map<string, { stamp: string; picture: DevicePicture }>;

function replicasByDevice(replicas: readonly Replica[]): Map<string, Replica[]> {
  const found = new Map<string, Replica[]>();
  for (const replica of replicas) {
    for (const id of new Set((replica.devices ?? []).map((part) => part.id))) {
      const here = found.get(id);
      if (here === undefined) found.set(id, [replica]);
      else here.push(replica);
    }
  }
  return found;
}

/**
 * Positions depend on ids alone, so nothing moves when figures do. A node that only its devices name is kept. `drawn`
 * is read and brought up to date.
 */
export function pictureOf(
  nodes: readonly NodeEntry[],
  devices: readonly Device[],
  replicas: readonly Replica[],
  drawn: Drawn = new Map(),
): NodePicture[] {
  const found = replicasByDevice(replicas);
  const before = new Map(drawn);
  drawn.clear();
  const rows = new Map<string, NodePicture>();
  for (const node of nodes) rows.set(node.id, { node, devices: [] });
  for (const device of devices) {
    const id = nodeOf(device);
    let row = rows.get(id);
    if (row === undefined) rows.set(id, (row = { node: { id }, devices: [] }));
    const here = found.get(device.id) ?? [];
    const stamp = JSON.stringify([device, here]);
    const old = before.get(device.id);
    const picture = old?.stamp === stamp ? old.picture : { device, use: useOf(device, here), replicas: here };
    drawn.set(device.id, { stamp, picture });
    row.devices.push(picture);
  }
  for (const row of rows.values()) row.devices.sort((a, b) => byId(a.device.id, b.device.id));
  return [...rows.values()].sort((a, b) => byId(a.node.id, b.node.id));
}
