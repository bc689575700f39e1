import { fileAt, isCounted } from '../../linux/file.ts';
import { type File, inodeStruct } from '../../linux/fs.ts';
import { fileKind, kindFits } from '../../linux/readers/file-kind.ts';
import type { OpenFile } from '../../model/file.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import { captureEventfd, captureInotify, captureSignalfd, captureTimerfd } from './anonymous.ts';
import type { CaptureContext } from './context.ts';
import { captureEventpoll } from './eventpoll.ts';
import { showHolder } from './holders.ts';
import { captureHungUpTerminal } from './hung-up-terminal.ts';
import { captureMemfd, memoryFileKind } from './memory-file.ts';
import { capturePathFile } from './path.ts';
import { capturePipe } from './pipe.ts';
import { FileRefusal } from './refusal.ts';
import { captureSocket } from './socket.ts';
import { captureTerminal } from './terminal.ts';

/** Files of which two users need not come back together: the same offset in a file is all that they share. */
const separable: ReadonlySet<OpenFile['type']> = new Set(['path']);

const kindNames: Readonly<Record<OpenFile['type'], string>> = {
  path: 'an open file',
  pipe: 'a pipe',
  fifo: 'a FIFO',
  unix: 'a unix socket',
  inet: 'an IP socket',
  netlink: 'a netlink socket',
  terminal: 'a terminal',
  eventfd: 'an eventfd',
  eventpoll: 'an epoll',
  timerfd: 'a timerfd',
  signalfd: 'a signalfd',
  inotify: 'an inotify',
  memfd: 'a memfd',
};

function captureKind(context: CaptureContext, file: File): OpenFile {
  const kind = fileKind(context.kernel, file.f_op);
  if (!kindFits(context.kernel, file))
    throw new FileRefusal('has a file that is damaged: its operations (f_op) are not those of its inode');
  switch (kind) {
    case 'pipe':
      return capturePipe(context, file);
    case 'socket':
      return captureSocket(context, file);
    case 'tty':
      return captureTerminal(context, file);
    case 'eventfd':
      return captureEventfd(context, file);
    case 'signalfd':
      return captureSignalfd(context, file);
    case 'timerfd':
      return captureTimerfd(context, file);
    case 'inotify':
      return captureInotify(context, file);
    case 'eventpoll':
      return captureEventpoll(context, file, (address) => captureOpenFile(context, address).id);
    case 'hung-up-tty':
      return captureHungUpTerminal(context, file);
    case undefined:
      return captureWithoutKind(context, file);
    default:
      throw new FileRefusal(`has an open ${kind}`);
  }
}

function captureWithoutKind(context: CaptureContext, file: File): OpenFile {
  switch (memoryFileKind(context, file)) {
    case 'memfd':
      return captureSharedMemfd(context, file);
    case 'sysv':
      throw new FileRefusal('has a System V shared memory segment open as a file');
    case 'anonymous':
    case 'other':
      throw new FileRefusal('has memory of the kernel open as a file');
    case undefined:
      return capturePathFile(context, file);
  }
}

/** A memfd, whose memory others can share without a descriptor: by mapping it. */
function captureSharedMemfd(context: CaptureContext, file: File): OpenFile {
  const { i_mapping } = context.kernel.bind(inodeStruct).at(file.f_inode);
  const holders = context.system.holdersOfFile(file.address).map(({ pid }) => pid);
  context.join([...holders, ...context.mappers.sharing(i_mapping, 'shared')], 'shared memory');
  return captureMemfd(context, file);
}

/** Holders of the file itself; a file that several processes share joins them, or is refused if one is not protected. */
function share(context: CaptureContext, address: bigint, file: OpenFile, count: number): void {
  const holders = context.system.holdersOfFile(address);
  const unknown = context.system.unknownHolders(count, holders.length);
  if (unknown !== undefined && !separable.has(file.type)) {
    throw new FileRefusal(`has ${kindNames[file.type]} that others may hold: ${unknown}`);
  }
  const outsider = holders.find(({ isProtected }) => !isProtected);
  const what = kindNames[file.type];
  if (outsider !== undefined && !context.parted.has(address)) {
    if (!separable.has(file.type)) {
      throw new FileRefusal(`shares ${what} with ${showHolder(outsider)}, which is not protected`);
    }
    if (file.type === 'path' && file.position !== undefined && file.position > 0n) {
      context.noteHolders(
        holders,
        `the offset of ${file.path} is no longer shared with ${showHolder(outsider)}`,
      );
    }
  }
  context.join(
    holders.map(({ pid }) => pid),
    what,
  );
}

/**
 * Refuses numbers that no sound kernel holds: everything that is said of a file is a count, a size, a time or a set of bits, at least
 * 0 and below 2^53 (bigints: 2^64).
 */
function checkNumbers(value: unknown, name: string): void {
  const isOff =
    typeof value === 'number'
      ? !Number.isSafeInteger(value) || value < 0
      : typeof value === 'bigint' && (value < 0n || value > 0xffff_ffff_ffff_ffffn);
  if (isOff) throw new FileRefusal(`has a file whose ${name} is ${value}`);
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return;
  for (const [key, inner] of Object.entries(value)) checkNumbers(inner, Array.isArray(value) ? name : key);
}

/**
 * The open file at the address of a struct file; the same for the same address. Throws a FileRefusal (the same every time) if
 * it cannot be brought back, for damaged structures as well.
 */
export function captureOpenFile(context: CaptureContext, address: bigint): OpenFile {
  const known = context.opened.get(address);
  if (known instanceof FileRefusal) throw known;
  if (known !== undefined) return known;
  // Found again before it is captured, the file is an epoll that leads back to itself, which no sound kernel has.
  context.opened.set(address, new FileRefusal('has an epoll that watches itself'));
  try {
    const file = fileAt(context.kernel, address);
    if (file === undefined) throw new FileRefusal('has a descriptor of what is no open file');
    const captured = captureKind(context, file);
    checkNumbers(captured, captured.type);
    share(context, address, captured, Number(file.f_count));
    if (!isCounted(file)) {
      const what = `references to ${kindNames[captured.type]}`;
      const holders = context.system.holdersOfFile(address);
      context.repairHolders(holders, { what, used: 'the file tables', instead: `f_count (${file.f_count})` });
    }
    context.opened.set(address, captured);
    context.files.set(captured.id, captured);
    return captured;
  } catch (error) {
    if (!(error instanceof VmcoreError || error instanceof FileRefusal)) throw error;
    const refusal =
      error instanceof FileRefusal
        ? error
        : new FileRefusal(`has a file that cannot be read: ${error.message}`);
    refusal.file ??= address;
    context.opened.set(address, refusal);
    throw refusal;
  }
}
