import { fmode } from '../../linux/file.ts';
import type { File } from '../../linux/fs.ts';
import { type PsiTrigger, psiTriggerOf } from '../../linux/psi-types.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { FileRefusal } from './refusal.ts';

/** The files that tell of stalls (Documentation/accounting/psi.rst): the system's, and those of a cgroup. */
const PRESSURE = {
  proc: /\/pressure\/(cpu|io|irq|memory)$/,
  cgroup2: /\/(cpu|io|irq|memory)\.pressure$/,
} as const;

/** Those that have a state for `some` and one for `full`, by their numbers (enum psi_res). */
const RESOURCES: readonly (string | undefined)[] = ['io', 'memory', 'cpu'];
const NANOSECONDS = 1000n;
/** WINDOW_MAX_US of kernel/sched/psi.c. */
const LONGEST_WINDOW = 10_000_000n;

/** A trigger for pressure. */
export interface PressureTrigger {
  /** As it is written to the file: `some 150000 1000000`. */
  readonly text: string;
  /** It has gone off, and nobody knows. */
  readonly isTold: boolean;
}

/**
 * The trigger that belongs to an open file of pressure; undefined for other files, and for those without one.
 * It is set by a write to the file, and gone when that is closed: what is opened again has none, and a poll
 * of it then returns at once with an error, again and again.
 * @throws FileRefusal if it cannot be set again; VmcoreError
 */
export function pressureTrigger(
  kernel: Kernel,
  file: Pick<File, 'f_mode' | 'f_ep' | 'private_data'>,
  { path, fileSystem: { name } }: { readonly path: string; readonly fileSystem: { readonly name: string } },
): PressureTrigger | undefined {
  if (name !== 'proc' && name !== 'cgroup2') return undefined;
  const resource = PRESSURE[name].exec(path)?.[1];
  if (resource === undefined || (file.f_mode & fmode.write) === 0) return undefined;
  const trigger = psiTriggerOf(kernel, file, name);
  if (trigger === undefined) return undefined;
  const what = `has a trigger for pressure (PSI) on ${path}`;
  // An epoll begins to wait for it when it is told of the file, which is before the trigger is there.
  if (file.f_ep !== 0n) throw new FileRefusal(`${what}, which an epoll watches`);
  if (resource === 'irq') throw new FileRefusal(what);
  const text = textOf(trigger, resource);
  if (text === undefined) throw new FileRefusal(`${what} that is damaged`);
  return { text, isTold: trigger.event !== 0 };
}

function textOf({ state, threshold, windowSize }: PsiTrigger, resource: string): string | undefined {
  const [limit, window] = [threshold / NANOSECONDS, windowSize / NANOSECONDS];
  const isWhole = threshold % NANOSECONDS === 0n && windowSize % NANOSECONDS === 0n;
  const isPossible = 0n < limit && limit <= window && window <= LONGEST_WINDOW;
  if (!isWhole || !isPossible || RESOURCES[state >> 1] !== resource) return undefined;
  return `${(state & 1) === 0 ? 'some' : 'full'} ${limit} ${window}`;
}
