// A wire that can be cut: a TCP proxy in a thread of its own. While it is cut bytes vanish in both directions and nobody is
// told, as when a cable is pulled; new connections are accepted by the kernel and hear nothing.
//
// A cut that is healed ends the old connections (their bytes are lost for good, as after a reboot of the switch: TCP would
// send them again, a proxy cannot).
import net from 'node:net';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';

export class Wire {
  // to: what net.connect takes ({port, host} or {path}).
  static async open(to) {
    const wire = new Wire();
    wire.worker = new Worker(fileURLToPath(import.meta.url), { workerData: { to } });
    wire.waiting = [];
    wire.worker.on('message', (message) => wire.waiting.shift()?.(message));
    wire.port = await new Promise((resolve) => wire.waiting.push(resolve));
    return wire;
  }

  tell(word) {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.worker.postMessage(word);
    });
  }

  // Both resolve with the number of bytes that have vanished so far.
  cut = () => this.tell('cut');
  heal = () => this.tell('heal');
  lost = () => this.tell('lost');
  close = () => this.worker.terminate();
}

if (!isMainThread) {
  let isCut = false;
  let lost = 0;
  const sockets = new Set();
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const far = isCut ? null : net.connect({ ...workerData.to, allowHalfOpen: true, noDelay: true });
    for (const [from, to] of far ? [[near, far], [far, near]] : [[near, null]]) {
      sockets.add(from);
      from.on('data', (bytes) => {
        if (isCut || !to) lost += bytes.length;
        else if (!to.write(bytes)) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      });
      from.on('end', () => isCut || to?.end());
      from.on('error', () => isCut || to?.destroy());
      from.on('close', () => {
        sockets.delete(from);
        if (!isCut) to?.destroy();
      });
    }
  });
  server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));
  parentPort.on('message', (word) => {
    if (word === 'cut') isCut = true;
    if (word === 'heal') {
      isCut = false;
      for (const socket of sockets) socket.destroy();
    }
    parentPort.postMessage(lost);
  });
}
