import { INDIRECT, type KernelStack, type StackFrame } from '../../linux/readers/kernel-stack.ts';
import {
  beforeEviction,
  beginning,
  otherTransactions,
  type ProgressRow,
  progressTable,
  takingApart,
} from './call-progress-table.ts';

/** How far a system call has certainly come. */
export type Progress =
  /** It has had no effect that making it again would repeat. */
  | { readonly kind: 'not-begun'; readonly reason: string }
  /** It reads or writes, and the position of the file is still the one that it began at. */
  | { readonly kind: 'position-kept'; readonly reason: string }
  /** It has had its effect, and returns 0. */
  | { readonly kind: 'done'; readonly reason: string }
  /** The stack does not tell; `why` if it could not be read. */
  | { readonly kind: 'unknown'; readonly why: string | undefined };

/** Functions of the body of a call are never entered twice on one stack: the outermost one counts. */
function outermost(frames: readonly StackFrame[], name: string): number {
  return frames.findLastIndex((frame) => frame.function === name);
}

/**
 * The frame in which a chain of functions ends, each of which the one before has called and that has not
 * returned: `do_unlinkat>vfs_unlink>down_write`. The last name is that of a function that was called, and may
 * be `indirect`. Undefined if the stack does not have the chain.
 */
function endOf(frames: readonly StackFrame[], chain: string): number | undefined {
  const names = chain.split('>');
  let at = outermost(frames, names[0] ?? '');
  for (let i = 1; i < names.length; i++) {
    const frame = frames[at];
    if (frame === undefined || frame.function !== names[i - 1] || frame.calls !== names[i]) return undefined;
    if (i < names.length - 1) at--;
  }
  return at < 0 ? undefined : at;
}

function has(frames: readonly StackFrame[], chains: string): boolean {
  return chains.split(/\s+/).some((chain) => chain !== '' && endOf(frames, chain) !== undefined);
}

/** Without the module that it is in: file systems are modules, or in the kernel. */
function bare(name: string | undefined): string {
  return name?.replace(/^.*:/, '') ?? '';
}

/** One of ext4's own. A file system stacked above has effects before and behind what ext4 does for it. */
function isExt4(frame: StackFrame | undefined): boolean {
  return bare(frame?.function).startsWith('ext4_');
}

/** Whether the operation of ext4, called at the end of the chain, waits for its transaction. */
function waitsToBegin(frames: readonly StackFrame[], chain: string): boolean {
  const end = endOf(frames, chain);
  if (end === undefined || !isExt4(frames[end - 1])) return false;
  const names = frames.slice(0, end).flatMap((frame) => [bare(frame.function), bare(frame.calls)]);
  return names.some((name) => beginning.has(name)) && !names.some((name) => otherTransactions.has(name));
}

function takesApart(frames: readonly StackFrame[], chain: string): boolean {
  const inner = frames.slice(0, endOf(frames, chain) ?? 0);
  const ofFileSystem = inner.findLast((frame) => !beforeEviction.has(bare(frame.function)));
  return isExt4(ofFileSystem) && inner.some((frame) => takingApart.has(bare(frame.function)));
}

function byRow(
  row: ProgressRow,
  frames: readonly StackFrame[],
  hasDelegations: boolean,
): Progress | undefined {
  if (has(frames, row.notBegun ?? '')) return { kind: 'not-begun', reason: row.reason };
  if (has(frames, row.positionKept ?? ''))
    return { kind: 'position-kept', reason: 'the file’s position is still where it began' };
  if (has(frames, row.done ?? '')) return { kind: 'done', reason: row.doneReason ?? 'it has had its effect' };
  const operations = (row.operations ?? '').split(/\s+/).filter((chain) => chain !== '');
  if (operations.some((chain) => waitsToBegin(frames, `${chain}>${INDIRECT}`)))
    return {
      kind: 'not-begun',
      reason: 'the file system waits for its journal, and has changed nothing yet',
    };
  if (row.lastName !== undefined && !hasDelegations && takesApart(frames, row.lastName))
    return { kind: 'done', reason: 'the name is gone, and what it named is being taken apart' };
  return undefined;
}

/** What comes before any call: tracers, audit, filters (kernel/entry/common.c). */
const ENTERING = 'do_syscall_64>syscall_trace_enter do_syscall_64>syscall_enter_from_user_mode';

/**
 * Tells from the kernel stack of a thread how far its system call has come. Pure: what the functions mean is
 * in `progressTable`, and beside it.
 *
 * @param given the call's arguments
 * @param hasDelegations somebody may have been promised to be asked before a name goes (nfsd): unlink then
 * gives up a reference, and begins anew
 */
export function callProgress(
  name: string,
  stack: KernelStack,
  given: readonly bigint[],
  hasDelegations = false,
): Progress {
  if (stack.end !== 'user') return { kind: 'unknown', why: stack.why ?? 'it is none of a system call' };
  const { frames } = stack;
  if (has(frames, ENTERING)) return { kind: 'not-begun', reason: 'it was still entering the kernel' };
  for (const row of progressTable) {
    if (!row.calls.split(/\s+/).includes(name) || row.unless?.(given) === true) continue;
    const found = byRow(row, frames, hasDelegations);
    if (found !== undefined) return found;
  }
  return { kind: 'unknown', why: undefined };
}
