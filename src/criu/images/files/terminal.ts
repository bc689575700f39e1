import type { MessageInitShape } from '@bufbuild/protobuf';
import type { GroupFiles } from '../../../model/file.ts';
import type {
  Terminal,
  TerminalFile,
  TerminalKind,
  TerminalSettings,
  Termios,
} from '../../../model/terminal.ts';
import type { ImageDirectory } from '../image.ts';
import {
  type TermiosEntrySchema,
  TtyDataEntrySchema,
  type TtyFileEntrySchema,
  TtyInfoEntrySchema,
  TtyType,
} from '../proto/gen/tty_pb.ts';
import { head } from './common.ts';

/** CRIU's own numbers for terminals without an index (criu/tty.c), doubled as it doubles those of ptys. */
const CONSOLE_ID = 2004;
const CURRENT_ID = 2012;
const FIRST_VIRTUAL_CONSOLE_ID = 2020;
/** TERMIOS_NCC of criu/include/tty.h: words in c_cc; the 19 control characters fill the first five. */
const CC_WORDS = 19;

const types: Readonly<Record<TerminalKind, TtyType>> = {
  'pty-master': TtyType.PTY,
  'pty-slave': TtyType.PTY,
  console: TtyType.CONSOLE,
  'virtual-console': TtyType.VT,
  serial: TtyType.SERIAL,
  current: TtyType.CTTY,
};

/** The number that CRIU knows a terminal by: of a pty twice its index, and one more for the master. */
export function ttyInfoId({ kind, ptyIndex = 0, rdev }: Terminal): number {
  switch (kind) {
    case 'pty-master':
      return 2 * ptyIndex + 1;
    case 'pty-slave':
      return 2 * ptyIndex;
    case 'current':
      return CURRENT_ID;
    case 'virtual-console':
      return FIRST_VIRTUAL_CONSOLE_ID + 2 * (rdev & 0x3f);
    default:
      return CONSOLE_ID;
  }
}

function termios({
  iflag,
  oflag,
  cflag,
  lflag,
  line,
  cc,
}: Termios): MessageInitShape<typeof TermiosEntrySchema> {
  const packed = Buffer.alloc(4 * CC_WORDS);
  packed.set(cc);
  const cCc = Array.from({ length: CC_WORDS }, (_, i) => packed.readUInt32LE(4 * i));
  return {
    cIflag: iflag,
    cOflag: oflag,
    cCflag: cflag,
    cLflag: lflag,
    cLine: line,
    cIspeed: 0,
    cOspeed: 0,
    cCc,
  };
}

function settingsEntries({ termios: current, lockedTermios, windowSize }: TerminalSettings) {
  const { rows, columns, xPixels, yPixels } = windowSize;
  return {
    termios: termios(current),
    termiosLocked: termios(lockedTermios),
    winsize: { wsRow: rows, wsCol: columns, wsXpixel: xPixels, wsYpixel: yPixels },
  };
}

function writeTerminal(images: ImageDirectory, terminal: Terminal): void {
  const { settings, ptyIndex, unread } = terminal;
  const id = ttyInfoId(terminal);
  images.image('tty-info').entry(TtyInfoEntrySchema, {
    id,
    type: types[terminal.kind],
    locked: terminal.locked,
    exclusive: terminal.exclusive,
    packetMode: terminal.packetMode,
    sid: terminal.session,
    pgrp: terminal.foregroundGroup,
    rdev: terminal.rdev,
    dev: terminal.device,
    uid: terminal.uid,
    gid: terminal.gid,
    ...(ptyIndex === undefined ? {} : { pty: { index: ptyIndex } }),
    ...(settings === undefined ? {} : settingsEntries(settings)),
  });
  if (unread.length > 0) images.image('tty-data').entry(TtyDataEntrySchema, { ttyId: id, data: unread });
}

/** `tty-info.img`, and `tty-data.img` for what had not been read. */
export function writeTerminals({ terminals }: GroupFiles, images: ImageDirectory): void {
  for (const terminal of terminals) writeTerminal(images, terminal);
}

/** An open file on a terminal. Throws an Error if that is not in the model. */
export function terminalFile(
  file: TerminalFile,
  terminals: ReadonlyMap<number, Terminal>,
): MessageInitShape<typeof TtyFileEntrySchema> {
  const terminal = terminals.get(file.terminalId);
  if (terminal === undefined)
    throw new Error(`terminal ${file.terminalId} of file ${file.id} is not in the model`);
  return { ...head(file), ttyInfoId: ttyInfoId(terminal), regfId: file.pathFile.id };
}
