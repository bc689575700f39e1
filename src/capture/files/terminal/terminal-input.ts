import type { TtyInput } from '../../../linux/tty.ts';
import type { Termios } from '../../../model/terminal.ts';

/** Bits of `struct termios` (include/uapi/asm-generic/termbits.h). */
const I = {
  parmrk: 0o10,
  istrip: 0o40,
  inlcr: 0o100,
  igncr: 0o200,
  icrnl: 0o400,
  iuclc: 0o1000,
  ixon: 0o2000,
};
const O = { opost: 1, olcuc: 2, onlcr: 4, ocrnl: 0o10, onocr: 0o20, onlret: 0o40, tabdly: 0o14000 };
const L = { isig: 1, icanon: 2, echo: 0o10 };
const CC = {
  intr: 0,
  quit: 1,
  erase: 2,
  kill: 3,
  eof: 4,
  start: 8,
  stop: 9,
  susp: 10,
  reprint: 12,
  discard: 13,
  werase: 14,
  lnext: 15,
};
const CR = 0x0d;
const LF = 0x0a;
/**
 * A write to one end of a pty fits its buffer if it is no longer than this (tty_buffer_set_limit in
 * drivers/tty/pty.c).
 */
const MAX_BYTES = 4096;

/** What can be put back into a terminal, and a sentence on what cannot. */
export interface PutBack {
  readonly bytes: Uint8Array;
  readonly note: string | undefined;
}

const nothing: PutBack = { bytes: new Uint8Array(0), note: undefined };

function lost(count: number, what: string): PutBack {
  return { bytes: new Uint8Array(0), note: `${count} bytes of ${what} that had not been read are lost` };
}

/**
 * What has to be written to the slave so that the master reads `input`. Output processing turns a line feed
 * into carriage return and line feed: this is undone. Anything else that it does to the bytes makes them
 * lost.
 */
export function putBackOutput(input: TtyInput, { oflag }: Termios): PutBack {
  const bytes = Buffer.concat([input.line, input.pending]);
  if (bytes.length === 0) return nothing;
  const what = 'terminal output';
  if (bytes.length > MAX_BYTES) return lost(bytes.length, what);
  if ((oflag & O.opost) === 0) return { bytes, note: undefined };
  const others = O.olcuc | O.ocrnl | O.onocr | O.onlret | O.tabdly;
  if ((oflag & others) !== 0) return lost(bytes.length, what);
  if ((oflag & O.onlcr) === 0) return { bytes, note: undefined };
  const written: number[] = [];
  for (const byte of bytes) {
    if (byte !== LF) written.push(byte);
    else if (written.at(-1) === CR) written[written.length - 1] = LF;
    else return lost(bytes.length, what);
  }
  return { bytes: Uint8Array.from(written), note: undefined };
}

/** Whether input processing would hand the byte on as it is. */
function passes(byte: number, { iflag, lflag, cc }: Termios): boolean {
  const is = (...names: (keyof typeof CC)[]) => byte !== 0 && names.some((name) => cc[CC[name]] === byte);
  if ((lflag & L.isig) !== 0 && is('intr', 'quit', 'susp')) return false;
  if ((lflag & L.icanon) !== 0 && is('erase', 'kill', 'eof', 'reprint', 'werase', 'lnext', 'discard'))
    return false;
  if ((iflag & I.ixon) !== 0 && is('start', 'stop')) return false;
  if (byte === CR) return (iflag & (I.icrnl | I.igncr)) === 0;
  if (byte === LF) return (iflag & I.inlcr) === 0;
  if (byte >= 0x80 && (iflag & I.istrip) !== 0) return false;
  if (byte === 0xff && (iflag & I.parmrk) !== 0) return false;
  return byte < 0x41 || byte > 0x5a || (iflag & I.iuclc) === 0;
}

/**
 * What has to be written to the master so that the slave reads `input`: the same bytes, if the line
 * discipline lets them.
 */
export function putBackInput(input: TtyInput, termios: Termios): PutBack {
  const bytes = Buffer.concat([input.line, input.pending]);
  if (bytes.length === 0 && !input.marked) return nothing;
  const what = 'terminal input';
  // Bytes on their way to the line discipline would be processed for the first time, the others for the
  // second.
  const processed = input.line.every((byte) => passes(byte, termios));
  if (input.marked || !processed || bytes.length > MAX_BYTES) return lost(bytes.length, what);
  const echoes = (termios.lflag & L.echo) !== 0;
  return { bytes, note: echoes ? `${bytes.length} bytes of terminal input are echoed once more` : undefined };
}
