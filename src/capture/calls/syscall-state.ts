import { fdSlot, filesStruct } from '../../linux/fdtable.ts';
import { fileAt, openFlags } from '../../linux/file.ts';
import { type File, inodeStruct } from '../../linux/fs.ts';
import { socketStruct } from '../../linux/net.ts';
import { fileKind } from '../../linux/readers/file-kind.ts';
import { kernelStack } from '../../linux/readers/kernel-stack.ts';
import type { UserMemory } from '../../linux/readers/user-memory.ts';
import { type Task, taskState } from '../../linux/sched.ts';
import { type Sock, sockStruct } from '../../linux/sock.ts';
import { readsMinimum, ttyOfFile } from '../../linux/tty.ts';
import type { Vma } from '../../model/memory.ts';
import type { UserRegisters } from '../../model/process.ts';
import { IPPROTO_TCP, SOCK_STREAM } from '../../system/abi.ts';
import { fileType, typeOf } from '../../system/file-mode.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { requestedBytes } from './call-buffers.ts';
import { callWitness, type Witness } from './call-witness.ts';
import { isBeforeExec, mayTakeAway } from './exec.ts';
import { waitActivity } from './served-wait.ts';
import { waitsForAll } from './socket-call.ts';
import { type Activity, ENOSYS, type SyscallState, type Transfer } from './syscall.ts';
import { appends, notTwice, positionedWrites, withoutPosition } from './syscall-repeat.ts';
import { syscallRow } from './syscall-table.ts';
import { FUTEX_CMD_MASK } from './timeout.ts';
import { directionOf, doneBytes } from './transfer-count.ts';

/** What of a thread decides about its system call besides its registers. */
export interface ThreadSituation {
  readonly task: Task;
  readonly user: UserMemory;
  readonly vmas: readonly Vma[];
  readonly registers: UserRegisters;
  /** The CPU that was executing the thread. */
  readonly cpu: number | undefined;
  readonly panicked: boolean;
  /**
   * Signals that are about to be delivered to a handler, and whether one of those handlers lacks SA_RESTART.
   */
  readonly handlerPending: boolean;
  readonly wokenBy: SyscallState['wokenBy'];
  readonly interruptedByHandler: boolean;
  readonly timeLeft: SyscallState['timeLeft'];
}

const futexCommands: ReadonlyMap<bigint, NonNullable<SyscallState['futex']>> = new Map([
  [0n, 'wait'],
  [9n, 'wait'],
  [1n, 'wake'],
  [10n, 'wake'],
  [6n, 'lock'],
  [8n, 'lock'],
  [13n, 'lock'],
  [7n, 'unlock'],
  [11n, 'wait-requeue'],
]);
/** The thread that has a priority-inheriting lock, in its word. */
const FUTEX_TID_MASK = 0x3fff_ffff;

/**
 * Calls on a socket that wait as long as SO_RCVTIMEO says, and those that wait as long as SO_SNDTIMEO says.
 */
const receives: ReadonlySet<string> = new Set(
  'read readv recvfrom recvmsg accept accept4 recvmmsg'.split(' '),
);
const sends: ReadonlySet<string> = new Set(
  'write writev sendto sendmsg sendmmsg sendfile connect'.split(' '),
);
/** MAX_SCHEDULE_TIMEOUT (include/linux/sched.h). */
const NO_TIMEOUT = (1n << 63n) - 1n;

function activityOf({ task, cpu }: ThreadSituation, isInCall: boolean): Activity {
  if (!isInCall) return 'user';
  if (cpu !== undefined) return 'running';
  if ((task.__state & taskState.interruptible) !== 0) return 'asleep';
  return (task.__state & taskState.uninterruptible) !== 0 ? 'blocked' : 'running';
}

function futexOf(name: string, [, operation = 0n]: readonly bigint[]): SyscallState['futex'] {
  if (name === 'futex_wait' || name === 'futex_waitv') return 'wait';
  if (name !== 'futex') return undefined;
  return futexCommands.get(operation & FUTEX_CMD_MASK) ?? 'other';
}

/** The task's tid is its number for the program too: processes in PID namespaces are refused. */
export function ownsFutex(task: Pick<Task, 'pid'>, user: UserMemory, address: bigint): boolean | undefined {
  const word = user.read(address, 4);
  return word.kind === 'bytes' ? (word.bytes.readUInt32LE(0) & FUTEX_TID_MASK) === task.pid : undefined;
}

function throughOf(kernel: Kernel, file: File): Transfer['through'] {
  const kind = fileKind(kernel, file.f_op);
  if (kind === 'pipe') return 'pipe';
  if (kind === 'tty' || kind === 'hung-up-tty') return 'tty';
  if (kind === 'socket') {
    const { type } = kernel.bind(socketStruct).at(file.private_data);
    // All other types keep the boundaries of messages.
    if (type !== SOCK_STREAM) return 'message-socket';
    return sockOf(kernel, file)?.sk_protocol === IPPROTO_TCP ? 'tcp-socket' : 'stream-socket';
  }
  const type = typeOf(kernel.bind(inodeStruct).at(file.f_inode).i_mode);
  return type === fileType.regular || type === fileType.block || type === fileType.directory
    ? 'regular'
    : 'other';
}

/** The open file that is the first argument of a call. */
function fileOf(kernel: Kernel, task: Task, [first = 0n]: readonly bigint[]): File | undefined {
  const fd = Number(BigInt.asIntN(32, first));
  const slot = fdSlot(kernel, task.files, fd);
  return slot === undefined || slot.file === 0n ? undefined : fileAt(kernel, slot.file);
}

function sockOf(kernel: Kernel, file: File): Sock | undefined {
  if (fileKind(kernel, file.f_op) !== 'socket') return undefined;
  const { sk } = kernel.bind(socketStruct).at(file.private_data);
  return sk === 0n ? undefined : kernel.bind(sockStruct).at(sk);
}

function waitsForMore(kernel: Kernel, name: string, given: readonly bigint[], file: File): boolean {
  if (fileKind(kernel, file.f_op) === 'tty') return readsMinimum(ttyOfFile(kernel, file)) > 1;
  return waitsForAll(name, given) || (sockOf(kernel, file)?.sk_rcvlowat ?? 1) > 1;
}

function transferOf(kernel: Kernel, name: string, situation: ThreadSituation, file: File): Transfer {
  const given = kernel.architecture.systemCalls.arguments(situation.registers);
  const through = throughOf(kernel, file);
  return {
    through,
    direction: directionOf(name),
    append: doesAppend(name, given, file),
    requestedBytes: requestedBytes(name, given),
    doneBytes: doneBytes(kernel, { name, given }, situation, through.endsWith('socket')),
    waitsForMore: waitsForMore(kernel, name, given, file),
  };
}

function doesAppend(name: string, given: readonly bigint[], file: File): boolean {
  return (file.f_flags & openFlags.append) !== 0 || appends(name, given);
}

function hasSocketTimeout(kernel: Kernel, name: string, file: File): boolean {
  if (!receives.has(name) && !sends.has(name)) return false;
  const sock = sockOf(kernel, file);
  if (sock === undefined) return false;
  return (receives.has(name) ? sock.sk_rcvtimeo : sock.sk_sndtimeo) !== NO_TIMEOUT;
}

/** To set it once more then takes nothing away that was written since. */
export function hasSize(kernel: Kernel, file: File, size: bigint): boolean {
  return BigInt(kernel.bind(inodeStruct).at(file.f_inode).i_size) === size;
}

function reasonAgainstTwice(
  kernel: Kernel,
  name: string,
  given: readonly bigint[],
  user: UserMemory,
  file: File | undefined,
): string | undefined {
  if (positionedWrites.has(name) && file !== undefined && doesAppend(name, given, file)) {
    return 'it appends to a file, and may have done so';
  }
  if (name === 'ftruncate' && file !== undefined && hasSize(kernel, file, given[1] ?? 0n)) return undefined;
  return notTwice(name, given, (address) => {
    const flags = user.read(address, 8);
    return flags.kind === 'bytes' ? flags.bytes.readBigUInt64LE() : undefined;
  });
}

/** Descriptors are taken and given back by threads that share the table, and by nobody else. */
function isOnlyUser(kernel: Kernel, { files }: Task): boolean {
  return kernel.bind(filesStruct).at(files).count === 1;
}

/** Calls that wait on an epoll, or set a file's size. */
const onFile: ReadonlySet<string> = new Set(['epoll_wait', 'epoll_pwait', 'epoll_pwait2', 'ftruncate']);

/** Whether what becomes of a call depends on the file that its first argument is. */
function asksForFile(name: string): boolean {
  const { class: kind } = syscallRow(name);
  const moves = kind === 'transfer' || positionedWrites.has(name);
  return moves || kind === 'close' || receives.has(name) || sends.has(name) || onFile.has(name);
}

function hasReplacedNothing(kernel: Kernel, { task, cpu }: ThreadSituation): boolean {
  return isBeforeExec(kernel, task) && !mayTakeAway(kernelStack(kernel, task, cpu));
}

const NOTHING: Witness = {
  progress: { kind: 'unknown', why: undefined },
  known: undefined,
  notTwice: undefined,
};

/** Collects what `decideSyscall` has to know. Throws a VmcoreError if the file table cannot be read. */
export function syscallState(kernel: Kernel, situation: ThreadSituation): SyscallState {
  const { registers, task, user } = situation;
  const { systemCalls } = kernel.architecture;
  const number = systemCalls.current(registers);
  const given = systemCalls.arguments(registers);
  const name = withoutPosition(systemCalls.name(number), given);
  const file = asksForFile(name) ? fileOf(kernel, task, given) : undefined;
  const futex = futexOf(name, given);
  const isTransfer = file !== undefined && syscallRow(name).class === 'transfer';
  const ax = systemCalls.result(registers);
  const isUnfinished = number !== -1 && ax === ENOSYS;
  const asked = activityOf(situation, number !== -1);
  const activity = number === -1 ? asked : waitActivity(kernel, situation, name, given, asked);
  const isSettled = activity === 'asleep' && syscallRow(name).class !== 'partial';
  const witness = isUnfinished
    ? callWitness(kernel, { ...situation, isSettled }, name, given, file)
    : NOTHING;
  return {
    call: number === -1 ? undefined : name,
    ax,
    activity,
    progress: witness.progress,
    known: witness.known,
    panicked: situation.panicked,
    handlerPending: situation.handlerPending,
    wokenBy: situation.wokenBy,
    interruptedByHandler: situation.interruptedByHandler,
    futex,
    ownsFutex: futex === 'lock' || futex === 'unlock' ? ownsFutex(task, user, given[0] ?? 0n) : undefined,
    transfer: isTransfer ? transferOf(kernel, name, situation, file) : undefined,
    isOpen: file !== undefined,
    isOnlyUser: syscallRow(name).class === 'close' && isOnlyUser(kernel, task),
    isBeforeExec: syscallRow(name).class === 'exec' && hasReplacedNothing(kernel, situation),
    hasSocketTimeout: file !== undefined && hasSocketTimeout(kernel, name, file),
    notTwice: reasonAgainstTwice(kernel, name, given, user, file) ?? witness.notTwice,
    timeLeft: situation.timeLeft,
  };
}
