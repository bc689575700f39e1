import { createConnection } from 'node:net';
import { LabError } from './error.ts';
import { guestPaths, readRunningGuest } from './guest.ts';

/** Ctrl-]: leaves the console, as in telnet and virsh. */
const LEAVE = 0x1d;

/**
 * Connects this terminal to the root shell on the guest's second serial port, until Ctrl-] or the end of input.
 * @throws LabError if the guest does not run
 */
export async function attachConsole(name: string): Promise<void> {
  readRunningGuest(name);
  const socket = createConnection(guestPaths(name).shell);
  const { stdin, stdout } = process;
  if (stdin.isTTY) stdin.setRawMode(true);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.on('connect', () => socket.write('\n'));
      socket.on('error', (error) => reject(new LabError(`console of ${name}: ${error.message}`)));
      socket.on('close', resolve);
      socket.on('data', (data) => stdout.write(data));
      stdin.on('end', () => socket.end());
      stdin.on('data', (data: Buffer) => {
        const leave = data.indexOf(LEAVE);
        if (leave < 0) socket.write(data);
        else socket.end(data.subarray(0, leave));
      });
    });
  } finally {
    if (stdin.isTTY) stdin.setRawMode(false);
    stdin.pause();
    socket.destroy();
  }
}
