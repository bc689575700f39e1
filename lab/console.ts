import { createConnection } from 'node:net';
import { LabError } from './error.ts';
import { guestPaths, readRunningGuest } from './guest.ts';

/** Ctrl-]: leaves the console, as in telnet and virsh. */
const LEAVE = 0x1d;

/**
 * Connects this terminal to the root shell on the guest's second serial port, until Ctrl-].
 * @throws LabError if standard input is no terminal, or the guest does not run
 */
export async function attachConsole(name: string): Promise<void> {
  if (!process.stdin.isTTY) {
    throw new LabError(`lab console needs a terminal; a command goes through 'lab exec ${name} -- COMMAND'`);
  }
  readRunningGuest(name);
  const socket = createConnection(guestPaths(name).shell);
  const { stdin, stdout } = process;
  stdin.setRawMode(true);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.on('connect', () => socket.write('\n'));
      socket.on('error', (error) => reject(new LabError(`console of ${name}: ${error.message}`)));
      socket.on('close', resolve);
      socket.on('data', (data) => stdout.write(data));
      stdin.on('end', () => socket.end());
      stdin.on('data', (data: Buffer) => {
        const leave = data.indexOf(LEAVE);
        if (!socket.writable) return;
        if (leave < 0) socket.write(data);
        else socket.end(data.subarray(0, leave));
      });
    });
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    socket.destroy();
  }
}
