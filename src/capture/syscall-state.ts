import { fdSlots } from '../linux/fdtable.ts';
import { type File, fileAt, openFlags } from '../linux/file.ts';
import { fileKind } from '../linux/file-kind.ts';
import { fileType, inodeStruct } from '../linux/fs.ts';
import { transferProgress } from '../linux/iov-iter.ts';
import { type Task, taskState } from '../linux/sched.ts';
import { socketStruct } from '../linux/sock.ts';
import { syscallName } from '../linux/unistd.ts';
import type { UserRegisters } from '../model/process.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Activity, SyscallState, Transfer } from './syscall.ts';

/** What of a thread decides about its system call besides its registers. */
export interface ThreadSituation {
  readonly task: Task;
  readonly registers: UserRegisters;
  readonly onCpu: boolean;
  readonly panicked: boolean;
  /** Signals that are about to be delivered to a handler, and whether one of those handlers lacks SA_RESTART. */
  readonly handlerPending: boolean;
  readonly interruptedByHandler: boolean;
}

/** Longest transfer that the kernel makes at once (MAX_RW_COUNT). */
const MAX_RW_COUNT = 0x7fff_f000n;
/** Linux keeps SOCK_STREAM as 1; all other types keep message boundaries. */
const SOCK_STREAM = 1;
const MSG_WAITALL = 0x100n;
/** include/uapi/linux/futex.h: the operation without its flags. */
const FUTEX_CMD_MASK = 0x7fn;
const futexWaits: ReadonlySet<bigint> = new Set([0n, 9n]);
const futexWakes: ReadonlySet<bigint> = new Set([1n, 10n]);

const reads: ReadonlySet<string> = new Set(['read', 'readv', 'recvfrom', 'recvmsg']);
/** Calls of the transfer class whose buffer and length are the second and third argument. */
const plainBuffer: ReadonlySet<string> = new Set(['read', 'write', 'sendto', 'recvfrom']);

function activityOf({ task, onCpu, registers }: ThreadSituation): Activity {
  if (BigInt.asIntN(64, registers.origAx) === -1n) return 'user';
  if (onCpu) return 'running';
  if ((task.__state & taskState.interruptible) !== 0) return 'asleep';
  return (task.__state & taskState.uninterruptible) !== 0 ? 'blocked' : 'running';
}

function futexOf(name: string, registers: UserRegisters): SyscallState['futex'] {
  if (name === 'futex_wait' || name === 'futex_waitv') return 'wait';
  if (name !== 'futex') return undefined;
  const command = registers.si & FUTEX_CMD_MASK;
  if (futexWaits.has(command)) return 'wait';
  return futexWakes.has(command) ? 'wake' : 'other';
}

function throughOf(kernel: Kernel, file: File): Transfer['through'] {
  const kind = fileKind(kernel, file.f_op);
  if (kind === 'pipe') return 'pipe';
  if (kind === 'tty' || kind === 'hung-up-tty') return 'tty';
  if (kind === 'socket') {
    const { type } = kernel.bind(socketStruct).at(file.private_data);
    return type === SOCK_STREAM ? 'stream-socket' : 'message-socket';
  }
  const type = kernel.bind(inodeStruct).at(file.f_inode).i_mode & fileType.mask;
  return type === fileType.regular || type === fileType.block || type === fileType.directory
    ? 'regular'
    : 'other';
}

function transferOf(kernel: Kernel, name: string, situation: ThreadSituation): Transfer | undefined {
  const { task, registers, onCpu } = situation;
  const fd = Number(BigInt.asIntN(32, registers.di));
  const slot = fdSlots(kernel, task.files).find((candidate) => candidate.fd === fd);
  const file = slot === undefined || slot.file === 0n ? undefined : fileAt(kernel, slot.file);
  if (file === undefined) return undefined;
  const direction = reads.has(name) ? 'read' : 'write';
  const length = registers.dx < MAX_RW_COUNT ? registers.dx : MAX_RW_COUNT;
  const known = plainBuffer.has(name) && !onCpu;
  const flags = name === 'recvmsg' ? registers.dx : name === 'recvfrom' ? registers.r10 : 0n;
  return {
    through: throughOf(kernel, file),
    direction,
    append: (file.f_flags & openFlags.append) !== 0,
    requestedBytes: plainBuffer.has(name) ? Number(length) : Number.MAX_SAFE_INTEGER,
    doneBytes: known ? transferProgress(kernel, task, direction, registers.si, length) : undefined,
    waitsForAll: (flags & MSG_WAITALL) !== 0n,
  };
}

/** Collects what `decideSyscall` has to know. Throws a VmcoreError if the file table cannot be read. */
export function syscallState(kernel: Kernel, situation: ThreadSituation): SyscallState {
  const { registers } = situation;
  const number = Number(BigInt.asIntN(64, registers.origAx));
  const name = syscallName(number);
  const isTransfer = [
    'read',
    'write',
    'readv',
    'writev',
    'sendto',
    'recvfrom',
    'sendmsg',
    'recvmsg',
  ].includes(name);
  return {
    number,
    ax: BigInt.asIntN(64, registers.ax),
    activity: activityOf(situation),
    panicked: situation.panicked,
    handlerPending: situation.handlerPending,
    interruptedByHandler: situation.interruptedByHandler,
    futex: futexOf(name, registers),
    transfer: isTransfer ? transferOf(kernel, name, situation) : undefined,
  };
}
