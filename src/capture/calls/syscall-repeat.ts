import { MAP_FIXED_NOREPLACE } from './call-progress-table.ts';

/** The six arguments of a system call, in order. */
type Arguments = readonly bigint[];

/** When a call that may be made twice as a rule may not, by its arguments. */
interface Exception {
  readonly when: (given: Arguments) => boolean;
  readonly reason: string;
}

const O_CREAT_EXCL = 0o300n;
const O_TRUNC = 0o1000n;
const IPC_CREAT_EXCL = 0o3000n;
const FALLOC_COLLAPSE_OR_INSERT = 0x28n;
const XATTR_CREATE = 1n;
const SEEK_CUR = 1n;
const EPOLL_CTL_MOD = 3n;
const SOL_SOCKET = 1n;
const SO_ERROR = 4n;
/**
 * Levels of setsockopt(2) of which every option is a value; other levels have options that join, add and
 * leave.
 */
const optionLevels: ReadonlySet<bigint> = new Set([1n, 6n]);

const int = (value: bigint): bigint => BigInt.asUintN(32, value);
const all = (value: bigint, bits: bigint): boolean => (value & bits) === bits;

function tellsOld(index: number): Exception {
  return {
    when: (given) => given[index] !== 0n,
    reason: 'it tells what was set before, which it has perhaps changed',
  };
}

function creates(index: number, bits: bigint): Exception {
  return {
    when: (given) => all(given[index] ?? 0n, bits),
    reason: 'it makes something that must not exist, and may have made it',
  };
}

/** open(2), by the argument that its flags are. */
function opens(index: number): Exception {
  return {
    when: (given) => isNotAgain(given[index] ?? 0n),
    reason: 'it makes a file that must not exist, or empties one, and may have done so',
  };
}

/** Whether these flags of open(2) make something that must be new, or empty what may have content again. */
function isNotAgain(flags: bigint): boolean {
  return all(flags, O_CREAT_EXCL) || all(flags, O_TRUNC);
}

const movesPosition: Exception = {
  when: () => true,
  reason: 'it moves the position, and may have done so',
};

const setsSize: Exception = {
  when: () => true,
  reason: 'it sets the size of a file, which may have been written to since',
};

const exceptions: ReadonlyMap<string, Exception> = new Map<string, Exception>([
  ['rt_sigaction', tellsOld(2)],
  ['rt_sigprocmask', tellsOld(2)],
  ['sigaltstack', tellsOld(1)],
  ['setitimer', tellsOld(2)],
  ['timer_settime', tellsOld(3)],
  ['timerfd_settime', tellsOld(3)],
  ['prlimit64', { ...tellsOld(3), when: ([, , limit, old]) => limit !== 0n && old !== 0n }],
  ['open', opens(1)],
  ['openat', opens(2)],
  ['getdents', movesPosition],
  ['getdents64', movesPosition],
  ['truncate', setsSize],
  ['ftruncate', setsSize],
  [
    'getsockopt',
    {
      when: ([, level = 0n, option = 0n]) => int(level) === SOL_SOCKET && int(option) === SO_ERROR,
      reason: 'it takes the error of a socket, and may have done so',
    },
  ],
  ['shmget', creates(2, IPC_CREAT_EXCL)],
  ['semget', creates(2, IPC_CREAT_EXCL)],
  ['msgget', creates(1, IPC_CREAT_EXCL)],
  ['mmap', creates(3, MAP_FIXED_NOREPLACE)],
  ['setxattr', creates(4, XATTR_CREATE)],
  ['lsetxattr', creates(4, XATTR_CREATE)],
  ['fsetxattr', creates(4, XATTR_CREATE)],
  [
    'fallocate',
    {
      when: ([, mode = 0n]) => (mode & FALLOC_COLLAPSE_OR_INSERT) !== 0n,
      reason: 'it moves what follows in the file, and may have done so',
    },
  ],
  [
    'lseek',
    {
      ...movesPosition,
      when: ([, offset, whence = 0n]) => int(whence) === SEEK_CUR && offset !== 0n,
    },
  ],
  [
    'epoll_ctl',
    {
      when: ([, operation = 0n]) => int(operation) !== EPOLL_CTL_MOD,
      reason: 'it adds or takes away a descriptor, and may have done so',
    },
  ],
  [
    'setsockopt',
    {
      when: ([, level = 0n]) => !optionLevels.has(int(level)),
      reason: 'it may add or take away something a second time',
    },
  ],
]);

/**
 * Why a call that the table calls `pure` must not be made twice with these arguments; undefined if it may be.
 *
 * @param flagsAt reads the flags at the address of an open_how (openat2(2)); undefined if that memory cannot
 * be read
 */
export function notTwice(
  name: string,
  given: Arguments,
  flagsAt: (address: bigint) => bigint | undefined,
): string | undefined {
  if (name === 'openat2') {
    const flags = flagsAt(given[2] ?? 0n);
    return flags === undefined || isNotAgain(flags) ? opens(2).reason : undefined;
  }
  const exception = exceptions.get(name);
  return exception?.when(given) === true ? exception.reason : undefined;
}

/** Flags of preadv2(2) and pwritev2(2). */
const RWF_APPEND = 0x10n;
const ANY_POSITION = (1n << 64n) - 1n;

/** The calls that preadv2 and pwritev2 are if they are not given a position. */
export function withoutPosition(name: string, [, , , position = 0n]: Arguments): string {
  if (BigInt.asUintN(64, position) !== ANY_POSITION) return name;
  if (name === 'preadv2') return 'readv';
  return name === 'pwritev2' ? 'writev' : name;
}

/** Whether a write was told to append, whatever its descriptor says. */
export function appends(name: string, given: Arguments): boolean {
  return name === 'pwritev2' && ((given[5] ?? 0n) & RWF_APPEND) !== 0n;
}

/**
 * Writes at a position, which on a descriptor that appends (O_APPEND) write at the end all the same
 * (pwrite(2)).
 */
export const positionedWrites: ReadonlySet<string> = new Set(['pwrite64', 'pwritev', 'pwritev2']);
