import { createConnection, type Socket } from 'node:net';
import { LabError } from './error.ts';

/** A debugger's connection to QEMU's gdbstub; the guest stands still while it is open. */
export interface GdbRemote {
  /** Reads bytes at a physical address. */
  read(physical: number, length: number): Promise<Buffer>;
  /** Writes bytes at a physical address, whatever the guest's page tables say. */
  write(physical: number, bytes: Buffer): Promise<void>;
  /** Lets the guest go on and closes the connection. */
  detach(): Promise<void>;
}

/**
 * Connects to a gdbstub on a unix socket and switches it to physical addresses.
 * Protocol: GDB manual, "Remote Serial Protocol"; `PhyMemMode` is QEMU's own packet (docs/system/gdb.rst).
 * @throws LabError if it cannot
 */
export async function connectGdb(socketPath: string): Promise<GdbRemote> {
  const socket = createConnection(socketPath);
  const exchange = packetExchange(socket);
  await expectOk(exchange, 'Qqemu.PhyMemMode:1');
  return {
    read: async (physical, length) => {
      const answer = await exchange(`m${physical.toString(16)},${length.toString(16)}`);
      if (answer.length !== length * 2)
        throw new LabError(`gdbstub cannot read at 0x${physical.toString(16)}`);
      return Buffer.from(answer, 'hex');
    },
    write: (physical, bytes) =>
      expectOk(exchange, `M${physical.toString(16)},${bytes.length.toString(16)}:${bytes.toString('hex')}`),
    detach: async () => {
      await expectOk(exchange, 'D');
      socket.destroy();
    },
  };
}

type Exchange = (packet: string) => Promise<string>;

async function expectOk(exchange: Exchange, packet: string): Promise<void> {
  const answer = await exchange(packet);
  if (answer !== 'OK') throw new LabError(`gdbstub answers '${answer}' to '${packet.slice(0, 40)}'`);
}

/** One packet at a time: `$data#checksum` out, `+` and `$answer#checksum` back. */
function packetExchange(socket: Socket): Exchange {
  let received = '';
  let waiting: { resolve(answer: string): void; reject(error: Error): void } | undefined;
  socket.on('data', (data) => {
    received += data.toString('latin1');
    const packet = /\$([^#]*)#[0-9a-f]{2}/.exec(received);
    if (!packet) return;
    received = received.slice(packet.index + packet[0].length);
    socket.write('+');
    waiting?.resolve(packet[1] ?? '');
  });
  const fail = (why: string): void => waiting?.reject(new LabError(`gdbstub: ${why}`));
  socket.on('error', (error) => fail(error.message));
  socket.on('close', () => fail('connection closed'));
  return (packet) =>
    new Promise((resolve, reject) => {
      waiting = { resolve, reject };
      const checksum = Buffer.from(packet).reduce((sum, byte) => (sum + byte) & 0xff, 0);
      socket.write(`$${packet}#${checksum.toString(16).padStart(2, '0')}`);
    });
}
