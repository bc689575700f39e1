import { fileAt, isCounted } from '../../linux/file.ts';
import type { File } from '../../linux/fs.ts';
import { fileKind, kindFits } from '../../linux/readers/file-kind.ts';
import type { OpenFile } from '../../model/file.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { CaptureContext } from './context.ts';
import { showHolder } from './holders/holders.ts';
import type { CaptureFile } from './kind.ts';
import { captures, kindOf, memoryKinds } from './kinds.ts';
import { memoryFileKind } from './memory/memory-file.ts';
import { capturePathFile } from './path/path.ts';
import { FileRefusal } from './refusal.ts';

function captureKind(context: CaptureContext, file: File): OpenFile {
  const kind = fileKind(context.kernel, file.f_op);
  if (!kindFits(context.kernel, file))
    throw FileRefusal.damaged('has a file that is damaged: its operations (f_op) are not those of its inode');
  const capture = kind === undefined ? captureWithoutKind(context, file) : captures[kind];
  if (capture === undefined) throw new FileRefusal(`has an open ${kind}`);
  return capture(context, file, (address) => captureOpenFile(context, address).id);
}

/** How a file is captured that has the operations of its file system. */
function captureWithoutKind(context: CaptureContext, file: File): CaptureFile {
  const memory = memoryFileKind(context, file);
  return memory === undefined ? capturePathFile : memoryKinds[memory].open;
}

/**
 * Holders of the file itself; a file that several processes share joins them, or is refused if one is not
 * protected.
 */
function share(context: CaptureContext, address: bigint, file: OpenFile, count: number): void {
  const kind = kindOf(file);
  const { name } = kind;
  const holders = context.system.holdersOfFile(address);
  const unknown = context.system.unknownHolders(
    count,
    holders.length + context.system.closedDescriptors(address),
  );
  if (unknown !== undefined && kind.parted === undefined) {
    throw new FileRefusal(`has ${name} that others may hold: ${unknown}`);
  }
  const outsider = holders.find(({ isProtected }) => !isProtected);
  if (outsider !== undefined && kind.isParted?.(context, address) !== true) {
    if (kind.parted === undefined) {
      throw new FileRefusal(`shares ${name} with ${showHolder(outsider)}, which is not protected`);
    }
    const note = kind.parted(file, showHolder(outsider));
    if (note !== undefined) context.noteHolders(holders, note);
  }
  context.join(
    holders.map(({ pid }) => pid),
    name,
  );
}

/**
 * Refuses numbers that no sound kernel holds: everything that is said of a file is a count, a size, a time or
 * a set of bits, at least 0 and below 2^53 (bigints: 2^64).
 */
function checkNumbers(value: unknown, name: string): void {
  const isOff =
    typeof value === 'number'
      ? !Number.isSafeInteger(value) || value < 0
      : typeof value === 'bigint' && (value < 0n || value > 0xffff_ffff_ffff_ffffn);
  if (isOff) throw FileRefusal.damaged(`has a file whose ${name} is ${value}`);
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return;
  for (const [key, inner] of Object.entries(value)) checkNumbers(inner, Array.isArray(value) ? name : key);
}

/**
 * The open file at the address of a struct file; the same for the same address. Throws a FileRefusal (the
 * same every time) if it cannot be brought back, for damaged structures as well.
 */
export function captureOpenFile(context: CaptureContext, address: bigint): OpenFile {
  const known = context.opened.get(address);
  if (known instanceof FileRefusal) throw known;
  // Found again before it is captured, the file is an epoll that leads back to itself, which no sound kernel
  // has.
  if (known === 'begun') throw FileRefusal.damaged('has an epoll that watches itself');
  if (known !== undefined) return known;
  context.opened.set(address, 'begun');
  try {
    const file = fileAt(context.kernel, address);
    if (file === undefined) throw FileRefusal.damaged('has a descriptor of what is no open file');
    const captured = captureKind(context, file);
    checkNumbers(captured, captured.type);
    share(context, address, captured, Number(file.f_count));
    if (!isCounted(file)) {
      const what = `references to ${kindOf(captured).name}`;
      const holders = context.system.holdersOfFile(address);
      context.repairHolders(holders, { what, used: 'the file tables', instead: `f_count (${file.f_count})` });
    }
    context.opened.set(address, captured);
    context.files.set(captured.id, captured);
    return captured;
  } catch (error) {
    if (!(error instanceof VmcoreError || error instanceof FileRefusal)) throw error;
    const refusal = error instanceof FileRefusal ? error : FileRefusal.unreadable('has a file that ', error);
    refusal.file ??= address;
    context.opened.set(address, refusal);
    throw refusal;
  }
}
