import { type File, major, minor, superBlockStruct, userDevice } from '../../../linux/fs.ts';
import { pidNr } from '../../../linux/pid.ts';
import { taskAt } from '../../../linux/sched.ts';
import { signalStruct } from '../../../linux/signal.ts';
import {
  hasTtyFlag,
  lineDiscipline,
  type Tty,
  ttyDriverKind,
  ttyInput,
  ttyOfFile,
  ttyStruct,
} from '../../../linux/tty.ts';
import type {
  Terminal,
  TerminalFile,
  TerminalKind,
  TerminalSettings,
  Termios,
} from '../../../model/terminal.ts';
import { readable } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import type { CaptureContext } from '../context.ts';
import { showHolder } from '../holders/holders.ts';
import type { GroupSelection } from '../kind.ts';
import { type NamedFile, namedFile } from '../named.ts';
import { pathFile } from '../path/path.ts';
import { FileRefusal } from '../refusal.ts';
import { hangUp, isForeign, MAX_PTY_INDEX, Terminals } from './hung-up-terminal.ts';
import { type PutBack, putBackInput, putBackOutput } from './terminal-input.ts';

/** Major numbers of include/uapi/linux/major.h. */
const TTY_MAJOR = 4;
const TTYAUX_MAJOR = 5;
const MAX_NR_CONSOLES = 63;

function kindOf(kernel: Kernel, tty: Tty, named: NamedFile): TerminalKind {
  const rdev = named.inode.i_rdev;
  const [high, low] = [major(rdev), minor(rdev)];
  if (high === TTYAUX_MAJOR && low === 0) return 'current';
  if (high === TTYAUX_MAJOR && low === 1) return 'console';
  const driver = ttyDriverKind(kernel, tty);
  if (driver === 'pty-master' || driver === 'pty-slave') return driver;
  if (driver === 'console' && high === TTY_MAJOR && low <= MAX_NR_CONSOLES) return 'virtual-console';
  throw new FileRefusal(
    `has the terminal ${named.path} (${high}:${low}) open, which CRIU cannot set up again`,
  );
}

function termiosOf({ c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc }: Tty['termios']): Termios {
  return { iflag: c_iflag, oflag: c_oflag, cflag: c_cflag, lflag: c_lflag, line: c_line, cc: c_cc };
}

function settingsOf(real: Tty, own: Tty): TerminalSettings {
  const { ws_row: rows, ws_col: columns, ws_xpixel: xPixels, ws_ypixel: yPixels } = own.winsize;
  return {
    termios: termiosOf(real.termios),
    lockedTermios: termiosOf(real.termios_locked),
    windowSize: { rows, columns, xPixels, yPixels },
  };
}

/** All who hold either end; refuses if one of them is not protected, or nobody holds the master. */
function sharePty(context: CaptureContext, tty: Tty, kind: 'pty-master' | 'pty-slave'): void {
  const { system } = context;
  const [own, other] = [system.holdersOfObject(tty.address), system.holdersOfObject(tty.link)];
  const [masters, slaves] = kind === 'pty-master' ? [own, other] : [other, own];
  const name = `/dev/pts/${tty.index}`;
  for (const [holders, end] of [
    [masters, `the terminal ${name}, whose master is held by`],
    [slaves, `the terminal ${name}, which is also held by`],
  ] as const) {
    const outsider = holders.find(({ isProtected }) => !isProtected);
    if (outsider !== undefined) {
      throw new FileRefusal(`has ${end} ${showHolder(outsider)}, which is not protected`);
    }
  }
  if (masters.length === 0)
    throw new FileRefusal(`has the terminal ${name}, whose master is held by no process`);
  // A master that has lost its last slave reads EIO; CRIU makes one that waits for its first.
  if (system.isClosed(tty.link))
    throw new FileRefusal(`has the terminal ${name}, whose other end a process had that was ending`);
  // The slave is counted once more as long as its master is open (pty_common_install).
  const slave = kind === 'pty-slave' ? tty : context.kernel.bind(ttyStruct).at(tty.link);
  const known = new Set(slaves.map(({ file }) => file)).size + system.closedFiles(slave.address);
  const unknown = system.unknownHolders(slave.count - 1, known);
  if (unknown !== undefined) throw new FileRefusal(`has the terminal ${name}, and ${unknown}`);
  if (system.mayLackClosed && slave.count - 1 > known)
    throw new FileRefusal(
      `has the terminal ${name}, which a process that was ending may just have been closing`,
    );
  context.join(
    [...own, ...other].map(({ pid }) => pid),
    `pty ${tty.index}`,
  );
}

function unread(context: CaptureContext, tty: Tty, real: Tty, kind: TerminalKind): Uint8Array {
  const input = ttyInput(context.kernel, tty);
  const termios = termiosOf(real.termios);
  const { bytes, note }: PutBack =
    kind === 'pty-master' ? putBackOutput(input, termios) : putBackInput(input, termios);
  if (note !== undefined) context.noteHolders(context.system.holdersOfObject(tty.address), note);
  return bytes;
}

function captureTty(context: CaptureContext, tty: Tty, kind: TerminalKind, named: NamedFile): Terminal {
  const { kernel } = context;
  const isPty = kind === 'pty-master' || kind === 'pty-slave';
  const real = kind === 'pty-master' ? kernel.bind(ttyStruct).at(tty.link) : tty;
  if (isPty && tty.index > MAX_PTY_INDEX) {
    throw new FileRefusal(`has /dev/pts/${tty.index} open; CRIU makes terminals up to ${MAX_PTY_INDEX} only`);
  }
  const discipline = lineDiscipline(kernel, tty);
  if (discipline !== 0) throw new FileRefusal(`has ${named.path} open with line discipline ${discipline}`);
  if (isPty && (tty.stopped || tty.tcoStopped)) {
    context.noteHolders(
      context.system.holdersOfObject(tty.address),
      `output to /dev/pts/${tty.index} that was stopped (Ctrl-S) goes on`,
    );
  }
  const number = (pid: bigint) => (pid === 0n ? 0 : pidNr(kernel, pid));
  const { i_sb, i_rdev, i_uid: uid, i_gid: gid } = named.inode;
  return {
    id: context.nextId(),
    kind,
    ptyIndex: isPty ? tty.index : undefined,
    locked: hasTtyFlag(tty, 'ptyLock'),
    exclusive: hasTtyFlag(tty, 'exclusive'),
    packetMode: tty.packet,
    session: number(real.session),
    foregroundGroup: number(real.pgrp),
    rdev: userDevice(i_rdev),
    device: userDevice(kernel.bind(superBlockStruct).at(i_sb).s_dev),
    uid,
    gid,
    settings: settingsOf(real, tty),
    unread: isPty ? unread(context, tty, real, kind) : new Uint8Array(0),
  };
}

/**
 * An open terminal. Throws a FileRefusal if the other end of a pty is held by a process that is not
 * protected, or if the terminal is of a kind that cannot be set up again.
 */
export function captureTerminal(context: CaptureContext, file: File): TerminalFile {
  const { kernel } = context;
  const named = namedFile(context, file.f_mnt, file.f_dentry);
  const tty = ttyOfFile(kernel, file);
  const kind = kindOf(kernel, tty, named);
  const driver = ttyDriverKind(kernel, tty);
  if (driver === 'pty-slave' && isForeign(context, tty)) return hangUp(context, file, tty);
  if (driver === 'pty-master' || driver === 'pty-slave') sharePty(context, tty, driver);
  // /dev/tty is another file on a terminal that has its own entry as well.
  const key = kind === 'current' ? -1n : tty.address;
  const { byTty, byId } = context.of(Terminals);
  let terminal = byTty.get(key);
  if (terminal === undefined) {
    terminal = captureTty(context, tty, kind, named);
    byTty.set(key, terminal);
    byId.set(terminal.id, terminal);
  }
  const common = context.common(file);
  return {
    type: 'terminal',
    ...common,
    terminalId: terminal.id,
    pathFile: pathFile(context, named, { ...common, id: context.nextId(), position: 0n }),
  };
}

/** A controlling terminal comes back with an open file on it, not by itself. */
export function noteLostTerminals(context: CaptureContext): void {
  const { kernel } = context;
  for (const { pid, task } of context.tasks.values()) {
    const tty = readable(() => kernel.bind(signalStruct).at(taskAt(kernel, task).signal).tty) ?? 0n;
    if (tty === 0n || context.of(Terminals).byTty.has(tty)) continue;
    const name = readable(() => kernel.bind(ttyStruct).at(tty).name) ?? 'a terminal';
    context.note(pid, `${name} is no longer its controlling terminal: no protected process has it open`);
  }
}

/** A session that does not come back cannot have a controlling terminal. */
function withoutLostSession(
  context: CaptureContext,
  terminal: Terminal,
  pids: ReadonlySet<number>,
): Terminal {
  if (terminal.session === 0 || pids.has(terminal.session)) return terminal;
  const { session, ptyIndex } = terminal;
  const name = ptyIndex === undefined ? 'a terminal' : `/dev/pts/${ptyIndex}`;
  for (const pid of pids)
    context.note(pid, `${name} controlled session ${session}, whose leader is not protected`);
  return { ...terminal, session: 0, foregroundGroup: 0 };
}

/** The terminals of a group's files. */
export function terminalsOf({ context, files, pids }: GroupSelection): Terminal[] {
  const ids = new Set(files.flatMap((file) => (file.type === 'terminal' ? [file.terminalId] : [])));
  return [...context.of(Terminals).byId.values()]
    .filter(({ id }) => ids.has(id))
    .map((terminal) => withoutLostSession(context, terminal, pids));
}
