/** The lists of /aiv/v1 put together for drawing: nodes in order of id, their devices in order of index. */
import type { Device, NodeEntry, Replica } from './types';
import { useOf, type DeviceUse } from './vram';

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

/** Positions depend on ids alone, so nothing moves when figures do. A node that only its devices name is kept. */
export function pictureOf(nodes: readonly NodeEntry[], devices: readonly Device[], replicas: readonly Replica[]): NodePicture[] {
  const rows = new Map<string, NodePicture>();
  for (const node of nodes) rows.set(node.id, { node, devices: [] });
  for (const device of devices) {
    const id = nodeOf(device);
    let row = rows.get(id);
    if (row === undefined) rows.set(id, (row = { node: { id }, devices: [] }));
    const here = replicas.filter((r) => (r.devices ?? []).some((part) => part.id === device.id));
    row.devices.push({ device, use: useOf(device, here), replicas: here });
  }
  for (const row of rows.values()) row.devices.sort((a, b) => byId(a.device.id, b.device.id));
  return [...rows.values()].sort((a, b) => byId(a.node.id, b.node.id));
}
