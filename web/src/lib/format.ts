const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

export function gib(bytes: number): number {
  return bytes / GIB;
}

/** Bytes for people: GiB with one digit, MiB below a tenth of a GiB, KiB below a MiB. */
export function size(bytes: number): string {
  if (bytes >= 0.1 * GIB) return `${(bytes / GIB).toFixed(1)} GiB`;
  if (bytes >= MIB) return `${(bytes / MIB).toFixed(bytes >= 10 * MIB ? 0 : 1)} MiB`;
  if (bytes >= 1024) return `${Math.round(bytes / 1024)} KiB`;
  return `${bytes} B`;
}

export function seconds(ms: number): string {
  return ms < 1000 ? `${(ms / 1000).toFixed(2)} s` : `${(ms / 1000).toFixed(1)} s`;
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

/** "just now", "12 s ago", "3 min ago". */
export function ago(ms: number): string {
  if (ms < 3000) return 'just now';
  if (ms < 90_000) return `${Math.round(ms / 1000)} s ago`;
  return `${Math.round(ms / 60_000)} min ago`;
}

/** "3 GPUs", "3 software GPUs", "2 GPUs and 1 software GPU": never a software GPU under the name of a real one. */
export function countGpus(devices: readonly { kind?: string }[]): string {
  const software = devices.filter((d) => d.kind === 'software').length;
  const real = devices.length - software;
  if (software === 0) return count(real, 'GPU');
  if (real === 0) return count(software, 'software GPU');
  return `${count(real, 'GPU')} and ${count(software, 'software GPU')}`;
}
