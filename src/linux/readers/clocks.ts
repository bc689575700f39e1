import { ContainerError, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { settled } from '../container.ts';
import { CLOCK, type Clocks, timekeeperStruct } from '../timekeeping.ts';
import {
  type ClockWitness,
  clockWitnesses,
  crashTime,
  TICK_ACCURACY,
  tickWitness,
  timeNear,
  timerOffset,
} from './clock-witnesses.ts';

/** `tk_core` is a sequence counter followed by the timekeeper, which is aligned to 8 bytes. */
const TIMEKEEPER_OFFSET = 8n;
const SECOND = 1_000_000_000n;

/**
 * How far CLOCK_MONOTONIC may be off, in words, if that is more than anybody bears who waits for a time;
 * undefined if the clocks are exact.
 */
export function coarseness({ estimate }: Clocks): string | undefined {
  if (estimate === undefined || estimate.accuracyNanoseconds <= SECOND) return undefined;
  return `the clocks are known to about ${estimate.accuracyNanoseconds / SECOND} s only`;
}

interface Candidate {
  readonly name: string;
  readonly clocks: Clocks;
}

/**
 * Reads the clocks. Everything in a timekeeper is kept twice (as nanoseconds, and as seconds and a rest),
 * which has to agree, and with the next tick. Where it does not, because the kernel died while it changed it
 * or because it is damaged, the copy that the kernel prepares each change in (`shadow_timekeeper`, up to
 * 6.12) and all else that has a time are asked as well; what most of them agree with is used. Throws a
 * VmcoreError if nothing is confirmed by anything else.
 */
export function readClocks(kernel: Kernel): Clocks {
  const problems: string[] = [];
  const timekeepers = candidates(kernel, problems);
  const [first] = timekeepers;
  const tick = tickWitness(kernel);
  if (first?.name === 'tk_core' && tick !== undefined && isNear(tick, first.clocks)) return first.clocks;
  return byAgreement(kernel, timekeepers, problems);
}

function isNear(witness: ClockWitness, { monotonic }: Clocks): boolean {
  return timeNear(witness, monotonic, TICK_ACCURACY) !== undefined;
}

function candidates(kernel: Kernel, problems: string[]): Candidate[] {
  const shadow = kernel.symbolMaybe('shadow_timekeeper');
  const places: (readonly [string, bigint])[] = [
    ['tk_core', kernel.symbol('tk_core') + TIMEKEEPER_OFFSET],
    ...(shadow === undefined ? [] : [['shadow_timekeeper', shadow] as const]),
  ];
  return places.flatMap(([name, address]) => {
    try {
      return [{ name, clocks: settled(kernel, () => clocksAt(kernel, address)) }];
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      problems.push(error.message);
      return [];
    }
  });
}

/** The timekeeper that most witnesses confirm; if none does, the witness that most others confirm. */
function byAgreement(kernel: Kernel, timekeepers: readonly Candidate[], problems: readonly string[]): Clocks {
  const witnesses = clockWitnesses(kernel);
  const support = ({ clocks }: Candidate): number => witnesses.filter((one) => isNear(one, clocks)).length;
  const [best] = timekeepers.toSorted((a, b) => support(b) - support(a));
  if (best !== undefined && (support(best) > 0 || witnesses.length === 0)) {
    if (best.name === 'tk_core') return best.clocks;
    return { ...best.clocks, estimate: { used: best.name, accuracyNanoseconds: TICK_ACCURACY } };
  }
  const [estimate] = witnesses
    .flatMap((one) => bestTime(witnesses, one) ?? [])
    .toSorted((a, b) => b.by - a.by);
  if (estimate === undefined) {
    throw new VmcoreError(['no clock is confirmed by another', ...problems].join('; '));
  }
  const { name, time, accuracy } = estimate;
  // Programs never see CLOCK_MONOTONIC go backwards: it is taken as late as it can have been.
  const monotonic = time + accuracy;
  return { ...allClocks(kernel, monotonic), estimate: { used: name, accuracyNanoseconds: 2n * accuracy } };
}

/**
 * Of a witness's times the one that most others confirm, and of several the nearest to one of them; undefined
 * if none is confirmed.
 */
function bestTime(witnesses: readonly ClockWitness[], one: ClockWitness) {
  const others = witnesses.filter((other) => other !== one);
  const [best] = one.times
    .map((time) => {
      const near = others.flatMap((other) => timeNear(other, time, one.accuracy) ?? []);
      const distances = near.map((other) => Number(other > time ? other - time : time - other));
      return { ...one, time, by: near.length, distance: Math.min(...distances) };
    })
    .toSorted((a, b) => b.by - a.by || a.distance - b.distance);
  return best === undefined || best.by === 0 ? undefined : best;
}

/**
 * The other clocks, which have their distance from CLOCK_MONOTONIC with the timers of each CPU. Throws a
 * VmcoreError if it is not there.
 */
function allClocks(kernel: Kernel, monotonic: bigint): Clocks {
  const [realtime, boottime, tai] = [CLOCK.realtime, CLOCK.boottime, CLOCK.tai].map((clock) =>
    timerOffset(kernel, clock),
  );
  const wall = realtime ?? (crashTime(kernel) ?? monotonic) - monotonic;
  if (wall === 0n || boottime === undefined)
    throw new VmcoreError(
      'nothing tells how far the clocks were apart: the timekeeper and all timers are damaged',
    );
  return {
    monotonic,
    realtime: monotonic + wall,
    boottime: monotonic + boottime,
    tai: monotonic + (tai ?? wall),
  };
}

function clocksAt(kernel: Kernel, address: bigint): Clocks {
  const tk = kernel.bind(timekeeperStruct).at(address);
  const wallToMonotonic = tk.wallToMonotonicSec * SECOND + tk.wallToMonotonicNsec;
  const pairs: readonly (readonly [what: string, one: bigint, other: bigint])[] = [
    ['base', tk.base, tk.xtime_sec * SECOND + wallToMonotonic],
    ['offset of CLOCK_REALTIME', tk.offs_real, -wallToMonotonic],
    ['offset of CLOCK_BOOTTIME', tk.offs_boot, tk.monotonicToBootSec * SECOND + tk.monotonicToBootNsec],
    ['offset of CLOCK_TAI', tk.offs_tai, tk.offs_real + BigInt(tk.tai_offset) * SECOND],
  ];
  const wrong = pairs.find(([, one, other]) => one !== other);
  if (wrong !== undefined) {
    const [what, one, other] = wrong;
    throw new ContainerError('timekeeper', address, `has a ${what} of ${one} ns, but of ${other} ns as well`);
  }
  const rest = tk.xtimeNsec >> BigInt(tk.shift);
  if (tk.base < 0n || tk.shift > 32 || rest > 2n * SECOND)
    throw new ContainerError('timekeeper', address, `has ${rest} ns since its base of ${tk.base} ns`);
  const monotonic = tk.base + rest;
  return {
    monotonic,
    realtime: monotonic + tk.offs_real,
    boottime: monotonic + tk.offs_boot,
    tai: monotonic + tk.offs_tai,
  };
}
