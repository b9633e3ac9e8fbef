// The same model on the CPU, without anything of AIvailable around it: what the software GPU is compared with.
import { spawn } from 'node:child_process';
import path from 'node:path';
import { engineDir } from '../lib/places.mjs';
import { within } from '../lib/wait.mjs';

const START_TIMEOUT_MS = 60_000;

// Starts llama-server on the CPU; { url, stop() }.
export async function startReference(model) {
  const args = ['-m', model, '--host', '127.0.0.1', '--port', '0', '-dev', 'none', '-ngl', '0', '-t', '1', '-np', '1', '-c', '1024', '--no-ui', '--offline'];
  const child = spawn(path.join(engineDir, 'llama-server'), args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, LD_LIBRARY_PATH: engineDir } });
  const ended = new Promise((resolve) => child.once('close', resolve));
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
  };
  let said = '';
  const listening = new Promise((resolve, reject) => {
    const look = (bytes) => {
      said += bytes;
      const found = /listening on (http:\/\/[\d.:]+)/.exec(said);
      if (found) resolve(found[1]);
    };
    child.stdout.on('data', look);
    child.stderr.on('data', look);
    ended.then(() => reject(new Error(`llama-server ended:\n${said.slice(-4000)}`)));
  });
  try {
    return { url: await within('llama-server listens', START_TIMEOUT_MS, listening), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
