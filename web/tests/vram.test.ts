import { describe, expect, it } from 'vitest';
import { pictureOf } from '../src/lib/picture';
import type { Device, Replica } from '../src/lib/types';
import { pixelsPerGib, totalsOf, useOf } from '../src/lib/vram';

const GiB = 1024 ** 3;
const card: Device = { id: 'n1/0', node: 'n1', name: 'GTX 1080', vram_bytes: 8 * GiB, foreign_bytes: GiB };
const replica = (id: string, state: string, weights: number, kv: number, compute: number, bytes = weights + kv + compute): Replica => ({
  id, deployment: id.split('-')[0]!, state, devices: [{ id: 'n1/0', weights, kv, compute, bytes }],
});
const sum = (device: Device, replicas: Replica[]) => useOf(device, replicas).segments.reduce((n, s) => n + s.bytes, 0);

describe('the segments of a bar', () => {
  it('are weights, cache and compute per replica, then other programs, then what is free', () => {
    const use = useOf(card, [replica('b-1', 'ready', 100, 20, 3), replica('a-1', 'loading', 1000, 200, 30)]);
    expect(use.segments.map((s) => [s.kind, s.owner])).toEqual([
      ['weights', 'a'], ['kv_reserved', 'a'], ['compute', 'a'],
      ['weights', 'b'], ['kv_reserved', 'b'], ['compute', 'b'],
      ['foreign', ''], ['free', ''],
    ]);
    expect(use.free).toBe(7 * GiB - 1353);
    expect(use.overfull).toBe(0);
  });

  it('add up to the size of the card, whatever is reported', () => {
    let seed = 12345;
    const next = (n: number) => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % n;
    const odd = [0, 1, -5, Number.NaN, Infinity, 0.5, 3 * GiB, 9 * GiB, undefined, '7' as unknown as number];
    const pick = () => odd[next(odd.length)] as number;
    const states = ['pending', 'loading', 'ready', 'draining', 'stopped', 'failed', 'new-state'];
    for (let round = 0; round < 2000; round++) {
      const device = { ...card, vram_bytes: next(12) * GiB + next(1000), foreign_bytes: pick() };
      const replicas = Array.from({ length: next(5) }, (_, i) => replica(`m${next(3)}-${i}`, states[next(7)]!, pick(), pick(), pick(), pick()));
      const use = useOf(device, replicas);
      expect(use.segments.reduce((n, s) => n + s.bytes, 0)).toBe(device.vram_bytes);
      expect(use.segments.every((s) => Number.isInteger(s.bytes) && s.bytes > 0)).toBe(true);
      expect(Object.values(totalsOf(use)).reduce((a, b) => a + b, 0)).toBe(device.vram_bytes);
    }
  });

  it('count what exceeds the known parts as the compute of that process', () => {
    const use = useOf(card, [replica('a-1', 'ready', 100, 20, 3, 200)]);
    expect(totalsOf(use)).toMatchObject({ weights: 100, kv_reserved: 20, compute: 80 });
  });

  it('are one block of weights where the server gives no breakdown', () => {
    const use = useOf(card, [{ id: 'a-1', state: 'ready', devices: [{ id: 'n1/0', bytes: 500 }] }]);
    expect(totalsOf(use)).toMatchObject({ weights: 500, compute: 0 });
    expect(use.segments[0]?.owner).toBe('a-1');
  });

  it('part the cache where the server knows how much of it is in use', () => {
    const use = useOf(card, [{ id: 'a-1', state: 'ready', devices: [{ id: 'n1/0', bytes: 100, weights: 10, kv: 90, kv_used: 30 }] }]);
    expect(totalsOf(use)).toMatchObject({ kv_used: 30, kv_reserved: 60 });
  });

  it('leave out replicas that hold nothing, and parts on other cards', () => {
    expect(useOf(card, [replica('a-1', 'failed', 1, 1, 1), replica('b-1', 'stopped', 1, 1, 1)]).ours).toBe(0);
    expect(useOf({ ...card, id: 'n1/1' }, [replica('a-1', 'ready', 1, 1, 1)]).ours).toBe(0);
  });

  it('mark what is promised and not yet held', () => {
    const segments = useOf(card, [replica('a-1', 'pending', 1, 1, 1)]).segments;
    expect(segments.filter((s) => s.planned).map((s) => s.kind)).toEqual(['weights', 'kv_reserved', 'compute']);
  });

  it('say by how much reports exceed the card, and still fill it exactly', () => {
    const use = useOf(card, [replica('a-1', 'ready', 9 * GiB, GiB, 0)]);
    expect(use.overfull).toBe(3 * GiB);
    expect(use.free).toBe(0);
    expect(sum(card, [replica('a-1', 'ready', 9 * GiB, GiB, 0)])).toBe(8 * GiB);
  });
});

describe('the scale of the map', () => {
  it('lets the widest node fill its row', () => {
    const scale = pixelsPerGib([[8, 8], [12]], 821, 20, 40);
    expect(scale).toBeCloseTo(50);
  });

  it('widens so that small cards are seen, as long as the largest fits', () => {
    expect(pixelsPerGib([[8, 8, 8, 8], [2]], 400, 0, 60)).toBeCloseTo(30);
    expect(pixelsPerGib([[80], [2]], 400, 0, 60)).toBeCloseTo(5);
  });

  it('never draws a card wider than the row', () => {
    for (const row of [100, 312, 1200]) {
      for (const nodes of [[[4]], [[8, 8], [12]], [[80, 80, 80, 80], [2]], [[0, 4]]]) {
        expect(pixelsPerGib(nodes, row, 20, 72) * Math.max(...nodes.flat())).toBeLessThanOrEqual(row + 1e-9);
      }
    }
  });

  it('is nothing without cards or room', () => {
    expect(pixelsPerGib([], 500, 20, 40)).toBe(0);
    expect(pixelsPerGib([[8]], 0, 20, 40)).toBe(0);
    expect(pixelsPerGib([[0]], 500, 20, 40)).toBe(0);
  });
});

describe('the picture', () => {
  it('keeps nodes and cards in the order of their ids, numbers as numbers', () => {
    const devices: Device[] = ['n10/0', 'n2/10', 'n2/9', 'n2/0'].map((id) => ({ id }));
    const rows = pictureOf([{ id: 'n10' }, { id: 'n2' }, { id: 'a' }], devices, []);
    expect(rows.map((r) => r.node.id)).toEqual(['a', 'n2', 'n10']);
    expect(rows[1]!.devices.map((d) => d.device.id)).toEqual(['n2/0', 'n2/9', 'n2/10']);
  });

  it('is the same object for a card on which nothing changed', () => {
    const drawn = new Map();
    const other: Device = { ...card, id: 'n1/1' };
    const replicas = [replica('a-1', 'ready', 10, 1, 1)];
    const first = pictureOf([], [card, other], replicas, drawn)[0]!.devices;
    const again = structuredClone([replica('a-1', 'ready', 10, 1, 1)]);
    const second = pictureOf([], structuredClone([card, other]), again, drawn)[0]!.devices;
    expect(second[0]).toBe(first[0]);
    const third = pictureOf([], [card, { ...other, foreign_bytes: 0 }], [{ ...replicas[0]!, slots_busy: 2 }], drawn)[0]!.devices;
    expect(third[0]).not.toBe(first[0]);
    expect(third[1]!.use.foreign).toBe(0);
    expect(pictureOf([], [card], [], drawn)[0]!.devices[0]!.replicas).toEqual([]);
    expect(drawn.size).toBe(1);
  });

  it('shows a card whose node is not in the list', () => {
    expect(pictureOf([], [card], [])[0]?.node.id).toBe('n1');
  });
});
