// Processes by their number, never by name. Linux only: /proc.
import fs from 'node:fs';
import { waitFor } from './wait.mjs';

function read(path) {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

// Fields of /proc/PID/stat behind the command's name: state is the first.
function statOf(pid) {
  const text = read(`/proc/${pid}/stat`);
  return text ? text.slice(text.lastIndexOf(')') + 2).split(' ') : null;
}

// A zombie counts as gone: only its parent has not looked yet.
export function isAlive(pid) {
  const stat = statOf(pid);
  return stat !== null && stat[0] !== 'Z' && stat[0] !== 'X';
}

export const startTimeOf = (pid) => statOf(pid)?.[19] ?? null;

export function commandOf(pid) {
  return read(`/proc/${pid}/cmdline`).split('\0').filter(Boolean);
}

// All living processes that belong to a data directory: named on their command line, working inside it, or marked by
// an inherited variable of their environment.
export function processesOf(dataDir, mark) {
  const found = [];
  for (const name of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const pid = Number(name);
    if (!isAlive(pid)) continue;
    const command = read(`/proc/${pid}/cmdline`);
    let directory = '';
    try {
      directory = fs.readlinkSync(`/proc/${pid}/cwd`);
    } catch {
      // It went away, or it is not ours.
    }
    const inside = directory === dataDir || directory.startsWith(`${dataDir}/`);
    if (inside || command.includes(dataDir) || (mark && read(`/proc/${pid}/environ`).split('\0').includes(mark))) {
      found.push({ pid, command: command.split('\0').filter(Boolean).join(' ') });
    }
  }
  return found;
}

// kill -9 and proof that it took hold.
export async function killHard(pid) {
  const start = startTimeOf(pid);
  process.kill(pid, 'SIGKILL');
  await waitFor(`process ${pid} is gone`, () => !isAlive(pid) || startTimeOf(pid) !== start, { timeoutMs: 5000, everyMs: 2 });
}

export async function stopProcess(pid) {
  process.kill(pid, 'SIGSTOP');
  await waitFor(`process ${pid} is stopped`, () => statOf(pid)?.[0] === 'T', { timeoutMs: 5000, everyMs: 2 });
}

// Resident bytes of a process.
export function residentBytes(pid) {
  const match = /VmRSS:\s+(\d+) kB/.exec(read(`/proc/${pid}/status`));
  return match ? Number(match[1]) * 1024 : 0;
}
