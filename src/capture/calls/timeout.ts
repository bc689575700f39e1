import type { Architecture } from '../../arch/index.ts';
import type { UserMemory } from '../../linux/readers/user-memory.ts';
import type { AddressSpace, PageOverride, Vma } from '../../model/memory.ts';
import type { UserRegisters } from '../../model/process.ts';
import { PAGE_SIZE, pageEnd, pageStart } from '../../system/page.ts';
import { ContainerError } from '../../vmcore/errors.ts';

/** Bytes of user memory to be changed before the process goes on. */
export interface MemoryPatch {
  readonly address: number;
  readonly bytes: Uint8Array;
}

/** How a system call is told how long to wait at most: by which of its arguments, counted from 0. */
type Timeout =
  /** Milliseconds; negative: for ever. */
  | { readonly kind: 'milliseconds'; readonly argument: number }
  /** Address of a relative time that the program keeps: a copy is made where the stack is free. */
  | { readonly kind: 'timespec'; readonly argument: number }
  /** Address of a relative time that the kernel updates itself when the call is interrupted. */
  | { readonly kind: 'updated'; readonly argument: number; readonly unit: 'timespec' | 'timeval' };

const timeouts: ReadonlyMap<string, Timeout> = new Map<string, Timeout>([
  ['nanosleep', { kind: 'timespec', argument: 0 }],
  ['clock_nanosleep', { kind: 'timespec', argument: 2 }],
  ['poll', { kind: 'milliseconds', argument: 2 }],
  ['epoll_wait', { kind: 'milliseconds', argument: 3 }],
  ['epoll_pwait', { kind: 'milliseconds', argument: 3 }],
  ['epoll_pwait2', { kind: 'timespec', argument: 3 }],
  ['rt_sigtimedwait', { kind: 'timespec', argument: 2 }],
  ['semtimedop', { kind: 'timespec', argument: 3 }],
  ['io_getevents', { kind: 'timespec', argument: 4 }],
  ['io_pgetevents', { kind: 'timespec', argument: 4 }],
  ['futex', { kind: 'timespec', argument: 3 }],
  ['ppoll', { kind: 'updated', argument: 2, unit: 'timespec' }],
  ['select', { kind: 'updated', argument: 4, unit: 'timeval' }],
  ['pselect6', { kind: 'updated', argument: 4, unit: 'timespec' }],
]);

const TIMER_ABSTIME = 1n;
/** include/uapi/linux/futex.h: the operation without its flags. */
export const FUTEX_CMD_MASK = 0x7fn;
const TIMESPEC_BYTES = 16;
const SECOND = 1_000_000_000n;

function isAbsolute(name: string, [, second = 0n]: readonly bigint[]): boolean {
  if (name === 'clock_nanosleep') return (second & TIMER_ABSTIME) !== 0n;
  // FUTEX_WAIT takes a relative time, all other operations an absolute one.
  return name === 'futex' && (second & FUTEX_CMD_MASK) !== 0n;
}

function timeBytes(nanoseconds: bigint, unit: 'timespec' | 'timeval'): Buffer {
  const bytes = Buffer.alloc(TIMESPEC_BYTES);
  bytes.writeBigInt64LE(nanoseconds / SECOND, 0);
  bytes.writeBigInt64LE((nanoseconds % SECOND) / (unit === 'timeval' ? 1000n : 1n), 8);
  return bytes;
}

/**
 * Changes a call that is made again so that it waits only for what was left of its time. Returns the
 * registers for it and the memory that has to change, or undefined if the call has no relative timeout.
 *
 * @param remaining nanoseconds, at least 0
 */
export function withRemainingTime(
  { systemCalls, stack }: Architecture,
  name: string,
  registers: UserRegisters,
  remaining: bigint,
): { registers: UserRegisters; patch: MemoryPatch | undefined } | undefined {
  const timeout = timeouts.get(name);
  const given = systemCalls.arguments(registers);
  if (timeout === undefined || isAbsolute(name, given)) return undefined;
  const setTo = (value: bigint) => systemCalls.withArgument(registers, timeout.argument, value);
  if (timeout.kind === 'milliseconds') {
    return { registers: setTo((remaining + 999_999n) / 1_000_000n), patch: undefined };
  }
  const pointer = given[timeout.argument] ?? 0n;
  if (pointer === 0n) return undefined;
  if (timeout.kind === 'updated') {
    const address = Number(pointer);
    return { registers, patch: { address, bytes: timeBytes(remaining, timeout.unit) } };
  }
  const below = Number(stack.pointer(registers)) - stack.redZoneBytes - TIMESPEC_BYTES;
  const address = below - (below % TIMESPEC_BYTES);
  return {
    registers: setTo(BigInt(address)),
    patch: { address, bytes: timeBytes(remaining, 'timespec') },
  };
}

/**
 * Whether a call with these arguments waits at most for a time from its beginning on, so that what was left
 * of it has to be known.
 */
export function hasRelativeTimeout(name: string, given: readonly bigint[]): boolean {
  const timeout = timeouts.get(name);
  if (timeout === undefined || isAbsolute(name, given)) return false;
  const value = given[timeout.argument] ?? 0n;
  return timeout.kind === 'milliseconds' ? BigInt.asIntN(32, value) > 0n : value !== 0n;
}

/**
 * Whether the kernel itself writes what is left of the time to where the program keeps it, when the call is
 * interrupted.
 */
export function isToldTheRest(name: string): boolean {
  return timeouts.get(name)?.kind === 'updated';
}

/** Where calls that sleep are given a place for what was left (nanosleep(2), clock_nanosleep(2)). */
const places: ReadonlyMap<string, number> = new Map([
  ['nanosleep', 1],
  ['clock_nanosleep', 3],
]);

/**
 * What the kernel writes to the memory of a program whose call a signal handler has ended: how much was left.
 *
 * @param remaining nanoseconds, at least 0
 */
export function toldRest(
  architecture: Architecture,
  name: string,
  registers: UserRegisters,
  remaining: bigint,
): MemoryPatch | undefined {
  if (isToldTheRest(name)) return withRemainingTime(architecture, name, registers, remaining)?.patch;
  const place = places.get(name);
  const given = architecture.systemCalls.arguments(registers);
  const address = place === undefined ? 0n : (given[place] ?? 0n);
  return address === 0n ? undefined : { address: Number(address), bytes: timeBytes(remaining, 'timespec') };
}

/** Whether memory at an address is the process's own and can be written to. */
export function canPatch(vmas: readonly Vma[], { address, bytes }: MemoryPatch): boolean {
  return vmas.some(
    ({ start, end, kind, prot }) =>
      address >= start &&
      address + bytes.length <= end &&
      (kind === 'anonymous' || kind === 'file-private') &&
      (prot & 2) !== 0,
  );
}

/**
 * Whether all of the pages that a patch changes are known as a whole: what it leaves has to stay as it is.
 */
export function isReadable(user: Pick<UserMemory, 'read'>, { address, bytes }: MemoryPatch): boolean {
  const first = pageStart(address);
  const end = pageEnd(address + bytes.length);
  return user.read(BigInt(first), end - first).kind === 'bytes';
}

/** Throws a ContainerError if the page cannot be read: patches are only made where it can. */
function pageOf(memory: AddressSpace, user: Pick<UserMemory, 'read'>, address: number): Buffer {
  const replaced = memory.overrides?.find((page) => page.address === address);
  if (replaced !== undefined) return Buffer.from(replaced.bytes);
  const page = user.read(BigInt(address), PAGE_SIZE);
  if (page.kind === 'bytes') return page.bytes;
  throw new ContainerError('page to be changed', BigInt(address), 'cannot be read');
}

/**
 * The address space with the patches applied, as pages that replace the dead kernel's. Each has to be {@link
 * isReadable}.
 */
export function applyPatches(
  memory: AddressSpace,
  user: Pick<UserMemory, 'read'>,
  patches: readonly MemoryPatch[],
): AddressSpace {
  const pages = new Map<number, Buffer>();
  for (const { address, bytes } of patches) {
    for (const [i, byte] of bytes.entries()) {
      const page = pageStart(address + i);
      let content = pages.get(page);
      if (content === undefined) {
        content = pageOf(memory, user, page);
        pages.set(page, content);
      }
      content[address + i - page] = byte;
    }
  }
  if (pages.size === 0) return memory;
  const kept = memory.overrides?.filter(({ address }) => !pages.has(address)) ?? [];
  const overrides: PageOverride[] = [...kept, ...[...pages].map(([address, bytes]) => ({ address, bytes }))];
  return { ...memory, overrides: overrides.toSorted((a, b) => a.address - b.address) };
}
