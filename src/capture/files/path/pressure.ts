import { dentryName, dentryStruct } from '../../../linux/dcache.ts';
import { fmode } from '../../../linux/file.ts';
import type { File } from '../../../linux/fs.ts';
import { type PsiTrigger, psiTriggerOf } from '../../../linux/psi-types.ts';
import { seqFileStruct } from '../../../linux/seq-file.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { FileRefusal } from '../refusal.ts';

/**
 * The files that tell of stalls (Documentation/accounting/psi.rst), by their own names from the root of their
 * file system or from their directory: the system's, and those of a cgroup.
 */
const PRESSURE = {
  proc: /^pressure\/(cpu|io|irq|memory)$/,
  cgroup2: /^(cpu|io|irq|memory)\.pressure$/,
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
  /** It has gone off or was about to, and nobody knows. */
  readonly isTold: boolean;
  /** Up to where the file has been read: writing can move its offset too. */
  readonly readTo: bigint;
}

/** Of a file: what says which it is, under whatever path it is mounted, and that path, for words. */
interface NamedDentry {
  readonly path: string;
  readonly dentry: bigint;
  readonly fileSystem: { readonly name: string };
}

/** Which resource a file tells of; undefined if it is no such file. */
function resourceOf(kernel: Kernel, address: bigint, fileSystem: 'proc' | 'cgroup2'): string | undefined {
  const Dentry = kernel.bind(dentryStruct);
  const dentry = Dentry.at(address);
  // The root has no name of its own.
  if (dentry.d_parent === dentry.address) return undefined;
  const name = dentryName(kernel, dentry);
  if (fileSystem === 'cgroup2') return PRESSURE.cgroup2.exec(name)?.[1];
  const parent = Dentry.at(dentry.d_parent);
  const isBelowRoot = parent.d_parent !== parent.address && isRoot(kernel, parent.d_parent);
  return isBelowRoot ? PRESSURE.proc.exec(`${dentryName(kernel, parent)}/${name}`)?.[1] : undefined;
}

function isRoot(kernel: Kernel, address: bigint): boolean {
  return kernel.bind(dentryStruct).at(address).d_parent === address;
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
  { path, dentry, fileSystem: { name } }: NamedDentry,
): PressureTrigger | undefined {
  if (name !== 'proc' && name !== 'cgroup2') return undefined;
  if ((file.f_mode & fmode.write) === 0) return undefined;
  const resource = resourceOf(kernel, dentry, name);
  if (resource === undefined) return undefined;
  const trigger = psiTriggerOf(kernel, file, name);
  if (trigger === undefined) return undefined;
  const what = `has a trigger for pressure (PSI) on ${path}`;
  // An epoll begins to wait for it when it is told of the file, which is before the trigger is there.
  if (file.f_ep !== 0n) throw new FileRefusal(`${what}, which an epoll watches`);
  if (resource === 'irq') throw new FileRefusal(what);
  const text = textOf(trigger, resource);
  if (text === undefined) throw new FileRefusal(`${what} that is damaged`);
  const { read_pos: readTo } = kernel.bind(seqFileStruct).at(file.private_data);
  return { text, isTold: trigger.event !== 0 || trigger.pending_event !== 0, readTo };
}

/**
 * Whether a file with a trigger is where reading has led to: it may be behind the text that its trigger was
 * set by, and nothing was read of it then.
 */
export function hasRead({ readTo }: Pick<PressureTrigger, 'readTo'>, position: bigint): boolean {
  return readTo === position;
}

function textOf({ state, threshold, windowSize }: PsiTrigger, resource: string): string | undefined {
  const [limit, window] = [threshold / NANOSECONDS, windowSize / NANOSECONDS];
  const isWhole = threshold % NANOSECONDS === 0n && windowSize % NANOSECONDS === 0n;
  const isPossible = 0n < limit && limit <= window && window <= LONGEST_WINDOW;
  if (!isWhole || !isPossible || RESOURCES[state >> 1] !== resource) return undefined;
  return `${(state & 1) === 0 ? 'some' : 'full'} ${limit} ${window}`;
}
