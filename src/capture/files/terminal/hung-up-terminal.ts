import { type File, major, superBlockStruct, userDevice } from '../../../linux/fs.ts';
import { taskAt } from '../../../linux/sched.ts';
import { pidOfRole } from '../../../linux/signal.ts';
import { type Tty, ttyStruct } from '../../../linux/tty.ts';
import type { PathFile } from '../../../model/open-file.ts';
import type { Terminal, TerminalFile } from '../../../model/terminal.ts';
import { readable } from '../../../vmcore/errors.ts';
import type { CaptureContext } from '../context.ts';
import { showHolder } from '../holders/holders.ts';
import { namedFile } from '../named.ts';
import { FileRefusal } from '../refusal.ts';

/** CRIU up to 4.1 opens at most 32 masters while it looks for the one with the right number. */
export const MAX_PTY_INDEX = 31;

/** UNIX98_PTY_SLAVE_MAJOR. */
const PTY_SLAVE_MAJOR = 136;

/** What is known of terminals. */
export class Terminals {
  readonly byId = new Map<number, Terminal>();
  /** By the address of the tty_struct; /dev/tty by -1n. */
  readonly byTty = new Map<bigint, Terminal>();
  /** Addresses of the files on those that were hung up because their other end does not come back. */
  readonly hungUp = new Set<bigint>();
}

/** Whether a file is on a terminal that `hangUp` has cut off from whoever else holds it. */
export function isHungUp(context: CaptureContext, address: bigint): boolean {
  return context.of(Terminals).hungUp.has(address);
}

/** A number that no terminal of the dead system has, from the highest that CRIU can make downwards. */
function freePtyIndex(context: CaptureContext): number {
  const Tty = context.kernel.bind(ttyStruct);
  // A terminal that cannot be read does not come back, so its number is free.
  const used = new Set(
    [...context.system.objectsOf('tty', 'hung-up-tty')].map((address) =>
      readable(() => Tty.at(address).index),
    ),
  );
  for (const { ptyIndex } of context.of(Terminals).byId.values()) used.add(ptyIndex ?? -1);
  for (let index = MAX_PTY_INDEX; index >= 0; index--) {
    if (!used.has(index)) return index;
  }
  throw new FileRefusal('has a terminal that was hung up, and no number is free to make it again');
}

/**
 * An open file on a terminal that was hung up, as what is started from a login and outlives it has. It reads
 * as ended and cannot be written to; it is made again under a number that is free. Throws a FileRefusal for a
 * terminal that is no pty.
 */
export function captureHungUpTerminal(context: CaptureContext, file: File): TerminalFile {
  const { kernel } = context;
  const named = namedFile(context, file.f_mnt, file.f_dentry);
  const { i_rdev: rdev, i_uid: uid, i_gid: gid, i_sb, i_mode: mode } = named.inode;
  if (major(rdev) !== PTY_SLAVE_MAJOR)
    throw new FileRefusal(`has the terminal ${named.path} open, which was hung up`);
  const index = freePtyIndex(context);
  const device = PTY_SLAVE_MAJOR * 256 + index;
  const terminal: Terminal = {
    id: context.nextId(),
    kind: 'pty-slave',
    ptyIndex: index,
    locked: false,
    exclusive: false,
    packetMode: false,
    session: 0,
    foregroundGroup: 0,
    rdev: device,
    device: userDevice(kernel.bind(superBlockStruct).at(i_sb).s_dev),
    uid,
    gid,
    settings: undefined,
    unread: new Uint8Array(0),
  };
  context.of(Terminals).byId.set(terminal.id, terminal);
  const common = context.common(file);
  const identity = { ...named.identity, mode, rdev: device };
  const path = `/dev/pts/${index}`;
  const pathFile: PathFile = {
    ...common,
    type: 'path',
    id: context.nextId(),
    path,
    position: 0n,
    identity,
    ghostId: undefined,
  };
  return { type: 'terminal', ...common, terminalId: terminal.id, pathFile };
}

/**
 * Whether a terminal belongs to people whose session does not come back, while the protected processes merely
 * have it open: the terminal of somebody who is attached to a server of terminals.
 */
export function isForeign(context: CaptureContext, tty: Tty): boolean {
  const { kernel, system } = context;
  const masters = system.holdersOfObject(tty.link);
  if (masters.length === 0 || masters.some(({ isProtected }) => isProtected)) return false;
  return [...context.tasks.values()].every(
    ({ task }) => pidOfRole(kernel, taskAt(kernel, task).signal, 'PIDTYPE_SID') !== tty.session,
  );
}

/**
 * The terminal's other end died with the kernel: it is hung up, as it would have been had its holder ended.
 */
export function hangUp(context: CaptureContext, file: File, tty: Tty): TerminalFile {
  const [master] = context.system.holdersOfObject(tty.link);
  const holders = context.system.holdersOfFile(file.address);
  const whose = master === undefined ? '' : ` of ${showHolder(master)}`;
  context.noteHolders(
    holders,
    `the terminal /dev/pts/${tty.index}${whose} is hung up: that process was not protected`,
  );
  context.of(Terminals).hungUp.add(file.address);
  return captureHungUpTerminal(context, file);
}
