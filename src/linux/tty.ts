import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  bool,
  bytes,
  cstring,
  embed,
  flags,
  pointer,
  s16,
  s32,
  struct,
  u8,
  u16,
  u32,
  ulongNumber,
  type ViewOf,
} from '../vmcore/view.ts';
import type { File } from './fs.ts';

/** `struct ktermios` (include/uapi/asm-generic/termbits.h). */
export const ktermios = struct('ktermios', {
  c_iflag: u32,
  c_oflag: u32,
  c_cflag: u32,
  c_lflag: u32,
  c_line: u8,
  c_cc: bytes,
});

/** `struct winsize` (include/uapi/asm-generic/termios.h). */
export const winsize = struct('winsize', { ws_row: u16, ws_col: u16, ws_xpixel: u16, ws_ypixel: u16 });

/**
 * `struct tty_struct` (include/linux/tty.h): one end of a terminal; the two ends of a pty are each other's
 * `link`.
 */
export const ttyStruct = struct('tty_struct', {
  index: s32,
  driver: pointer,
  ldisc: pointer,
  flags,
  count: s32,
  name: cstring,
  termios: embed(ktermios),
  termios_locked: embed(ktermios),
  winsize: embed(winsize),
  pgrp: pointer.at('ctrl.pgrp'),
  session: pointer.at('ctrl.session'),
  packet: bool.at('ctrl.packet'),
  stopped: bool.at('flow.stopped'),
  tcoStopped: bool.at('flow.tco_stopped'),
  link: pointer,
  disc_data: pointer,
  port: pointer,
});

export type Tty = ViewOf<typeof ttyStruct>;

/** Bits of `tty_struct.flags` (include/linux/tty.h). */
export const ttyFlag = { otherClosed: 2, exclusive: 3, ptyLock: 16, hupped: 18 } as const;

export function hasTtyFlag(tty: Tty, flag: keyof typeof ttyFlag): boolean {
  return tty.flags.has(ttyFlag[flag]);
}

/** `struct tty_file_private`, the private_data of a terminal's file. */
export const ttyFilePrivate = struct('tty_file_private', { tty: pointer, file: pointer });

/** c_lflag: line by line. Where c_cc[] keeps VMIN (include/uapi/asm-generic/termbits-common.h). */
const ICANON = 2;
const VMIN = 6;

/**
 * How many bytes a read waits for at least (n_tty_read, drivers/tty/n_tty.c); 1 for a terminal that is read
 * by lines.
 */
export function readsMinimum({ termios }: Tty): number {
  return (termios.c_lflag & ICANON) !== 0 ? 1 : (termios.c_cc[VMIN] ?? 1);
}

/** `struct tty_driver` (include/linux/tty_driver.h). */
export const ttyDriver = struct('tty_driver', {
  name: pointer,
  major: s32,
  minor_start: s32,
  type: s16,
  subtype: s16,
});

/** TTY_DRIVER_TYPE_* and PTY_TYPE_* of include/linux/tty_driver.h. */
const DRIVER_TYPE = { system: 1, console: 2, serial: 3, pty: 4 } as const;
const PTY_TYPE_MASTER = 1;

export type TtyDriverKind = 'pty-master' | 'pty-slave' | 'console' | 'serial' | 'other';

/** What kind of driver a terminal has; `console` is a virtual console. */
export function ttyDriverKind(kernel: Kernel, tty: Tty): TtyDriverKind {
  const { type, subtype } = kernel.bind(ttyDriver).at(tty.driver);
  switch (type) {
    case DRIVER_TYPE.pty:
      return subtype === PTY_TYPE_MASTER ? 'pty-master' : 'pty-slave';
    case DRIVER_TYPE.console:
      return 'console';
    case DRIVER_TYPE.serial:
      return 'serial';
    default:
      return 'other';
  }
}

/**
 * The terminal behind an open file. Throws a ContainerError if the file's private data does not point back.
 */
export function ttyOfFile(kernel: Kernel, file: File): Tty {
  const priv = kernel.bind(ttyFilePrivate).at(file.private_data);
  if (priv.file !== file.address) {
    throw new ContainerError('tty_file_private', priv.address, 'does not point back to its file');
  }
  return kernel.bind(ttyStruct).at(priv.tty);
}

const N_TTY_BUF_SIZE = 4096;
/** `struct n_tty_data` (drivers/tty/n_tty.c). */
export const nTtyData = struct('n_tty_data', {
  commit_head: ulongNumber,
  read_head: ulongNumber,
  read_tail: ulongNumber,
  canon_head: ulongNumber,
  icanon: u8,
  read_buf: bytes,
  read_flags: bytes,
});

/** `struct tty_ldisc` and `struct tty_ldisc_ops` (include/linux/tty_ldisc.h). */
export const ttyLdisc = struct('tty_ldisc', { ops: pointer });
export const ttyLdiscOps = struct('tty_ldisc_ops', { num: s32 });

/** Number of the line discipline: 0 is N_TTY. */
export function lineDiscipline(kernel: Kernel, tty: Tty): number {
  return kernel.bind(ttyLdiscOps).at(kernel.bind(ttyLdisc).at(tty.ldisc).ops).num;
}

/** `struct tty_port` (include/linux/tty_port.h). */
export const ttyPort = struct('tty_port', { head: pointer.at('buf.head') });
/** `struct tty_buffer` (include/linux/tty_buffer.h). */
export const ttyBuffer = struct('tty_buffer', {
  next: pointer,
  used: u32,
  size: u32,
  commit: u32,
  read: u32,
  data: addressOf('data'),
});

/**
 * Bytes that a terminal's buffers can hold at most (tty_buffer.c, TTYB_DEFAULT_MEM_LIMIT) and their number.
 */
const MAX_FLIP_BYTES = 640 * 1024;
const MAX_FLIP_BUFFERS = 8192;

/** What has arrived at a terminal and has not been read. */
export interface TtyInput {
  /** Bytes in the line discipline, as a reader would get them; none if the discipline is not N_TTY. */
  readonly line: Uint8Array;
  /** In canonical mode: bytes of `line` that belong to complete lines; without it all of them. */
  readonly completeBytes: number;
  /** `line` holds an end-of-file or end-of-line mark that its bytes do not show. */
  readonly marked: boolean;
  /** Bytes on their way to the line discipline. */
  readonly pending: Uint8Array;
}

function lineInput(kernel: Kernel, tty: Tty): Omit<TtyInput, 'pending'> {
  if (tty.disc_data === 0n || lineDiscipline(kernel, tty) !== 0) {
    return { line: new Uint8Array(0), completeBytes: 0, marked: false };
  }
  const data = kernel.bind(nTtyData).at(tty.disc_data);
  const { read_tail: tail } = data;
  const canonical = data.icanon === 1;
  const length = (canonical ? data.read_head : data.commit_head) - tail;
  const complete = canonical ? data.canon_head - tail : length;
  if (length < 0 || length > N_TTY_BUF_SIZE || complete < 0 || complete > length) {
    throw new ContainerError('n_tty_data', data.address, `holds ${complete} of ${length} bytes`);
  }
  const [ring, flags] = [data.read_buf, data.read_flags];
  const line = new Uint8Array(length);
  let marked = false;
  for (let i = 0; i < length; i++) {
    const at = (tail + i) % N_TTY_BUF_SIZE;
    const byte = ring[at] ?? 0;
    line[i] = byte;
    // A set flag ends a line; on anything but a newline it stands for EOF or EOL.
    if (canonical && ((flags[at >> 3] ?? 0) & (1 << (at & 7))) !== 0 && byte !== 0x0a) marked = true;
  }
  return { line, completeBytes: complete, marked };
}

function flipInput(kernel: Kernel, tty: Tty): Uint8Array {
  if (tty.port === 0n) return new Uint8Array(0);
  const Buffers = kernel.bind(ttyBuffer);
  const parts: Buffer[] = [];
  let total = 0;
  let at = kernel.bind(ttyPort).at(tty.port).head;
  for (let i = 0; at !== 0n; i++) {
    const buffer = Buffers.at(at);
    const length = buffer.commit - buffer.read;
    if (i >= MAX_FLIP_BUFFERS || length < 0 || buffer.commit > MAX_FLIP_BYTES) {
      throw new ContainerError('tty_buffer', at, `holds ${length} bytes of ${buffer.size}`);
    }
    total += length;
    if (total > MAX_FLIP_BYTES)
      throw new ContainerError('tty_buffer', at, `is part of more than ${MAX_FLIP_BYTES} bytes`);
    if (length > 0) parts.push(kernel.memory.read(buffer.data + BigInt(buffer.read), length));
    at = buffer.next;
  }
  return Buffer.concat(parts);
}

/** The input of a terminal that nobody has read. Throws a VmcoreError if its buffers are damaged. */
export function ttyInput(kernel: Kernel, tty: Tty): TtyInput {
  return { ...lineInput(kernel, tty), pending: flipInput(kernel, tty) };
}
