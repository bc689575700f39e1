import { createConnection, type Socket } from 'node:net';
import { LabError } from './error.ts';

/** A debugger's connection to QEMU's gdbstub; the guest stands still while it is open. */
export interface GdbRemote {
  /** Reads bytes at a physical address. */
  read(physical: number, length: number): Promise<Buffer>;
  /** Writes bytes at a physical address, whatever the guest's page tables say. */
  write(physical: number, bytes: Buffer): Promise<void>;
  /** Registers of a CPU, by the names of the kernel's pt_regs. */
  registers(cpu: number): Promise<Record<string, bigint>>;
  /** Executes one instruction on a CPU; the others stand still, and no interrupt comes. */
  step(cpu: number): Promise<void>;
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
    registers: async (cpu) => {
      await expectOk(exchange, `Hg${threadOf(cpu)}`);
      return parseRegisters(Buffer.from(await exchange('g'), 'hex'));
    },
    step: async (cpu) => {
      const answer = await exchange(`vCont;s:${threadOf(cpu)}`);
      if (!answer.startsWith('T')) throw new LabError(`gdbstub answers '${answer}' to a step`);
    },
    detach: async () => {
      await expectOk(exchange, 'D');
      socket.destroy();
    },
  };
}

/** QEMU counts CPUs from 1. */
function threadOf(cpu: number): string {
  return (cpu + 1).toString(16);
}

/** The order of GDB's description of x86-64 (features/i386/64bit-core.xml). */
const GENERAL = 'ax bx cx dx si di bp sp r8 r9 r10 r11 r12 r13 r14 r15 ip'.split(' ');
const HALVES = ['flags', 'cs', 'ss'];

function parseRegisters(bytes: Buffer): Record<string, bigint> {
  if (bytes.length < GENERAL.length * 8 + HALVES.length * 4) throw new LabError('gdbstub has few registers');
  return Object.fromEntries([
    ...GENERAL.map((name, i) => [name, bytes.readBigUInt64LE(i * 8)]),
    ...HALVES.map((name, i) => [name, BigInt(bytes.readUInt32LE(GENERAL.length * 8 + i * 4))]),
  ]);
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
