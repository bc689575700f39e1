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
  /** Floating-point and XMM registers of a CPU, and the segment base that SWAPGS would put in force. */
  vectors(cpu: number): Promise<VectorRegisters>;
  /** Has every CPU stop before it executes the instruction at an address of the kernel, or no more. */
  breakAt(address: bigint, isOn: boolean): Promise<void>;
  /** Lets all CPUs go on until one of them stops at such an address. @returns which */
  resume(): Promise<number>;
  /** Executes one instruction on a CPU; the others stand still, and no interrupt comes. */
  step(cpu: number): Promise<void>;
  /** Lets the guest go on and closes the connection. */
  detach(): Promise<void>;
}

/** What of a CPU's vector registers QEMU shows a debugger. */
export interface VectorRegisters {
  /** The legacy region of an XSAVE area; where an exception was is not in it. */
  readonly fxsave: Buffer;
  /** IA32_KERNEL_GS_BASE. */
  readonly kernelGsBase: bigint;
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
    vectors: async (cpu) => {
      await expectOk(exchange, `Hg${threadOf(cpu)}`);
      return parseVectors(Buffer.from(await exchange('g'), 'hex'));
    },
    breakAt: (address, isOn) => expectOk(exchange, `${isOn ? 'Z' : 'z'}1,${address.toString(16)},1`),
    resume: async () => {
      const answer = await exchange('vCont;c');
      const thread = /^T05.*thread:(?:p[0-9a-f]+\.)?([0-9a-f]+);/.exec(answer)?.[1];
      if (thread === undefined) throw new LabError(`gdbstub answers '${answer}' to going on`);
      return Number.parseInt(thread, 16) - 1;
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

/** Behind the general registers: six selectors, FS, GS and kernel GS base, six control registers. */
const KERNEL_GS = GENERAL.length * 8 + 7 * 4 + 2 * 8;
const X87 = KERNEL_GS + 8 + 6 * 8;
/** Eight registers of 10 bytes, then eight words of 4: control, status, tag, and where an exception was. */
const X87_CONTROL = X87 + 80;
const XMM = X87_CONTROL + 32;
const MXCSR = XMM + 256;

function parseVectors(bytes: Buffer): VectorRegisters {
  if (bytes.length < MXCSR + 4) throw new LabError('gdbstub has few vector registers');
  const fxsave = Buffer.alloc(512);
  fxsave.writeUInt16LE(bytes.readUInt16LE(X87_CONTROL), 0);
  fxsave.writeUInt16LE(bytes.readUInt16LE(X87_CONTROL + 4), 2);
  fxsave.writeUInt32LE(bytes.readUInt32LE(MXCSR), 24);
  for (let i = 0; i < 8; i++) bytes.copy(fxsave, 32 + i * 16, X87 + i * 10, X87 + i * 10 + 10);
  bytes.copy(fxsave, 160, XMM, XMM + 256);
  return { fxsave, kernelGsBase: bytes.readBigUInt64LE(KERNEL_GS) };
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
