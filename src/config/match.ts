import { bytesToText } from '../system/byte-text.ts';
import type { ProtectionRule } from './protection.ts';
import { slicesUser, systemPlace, type UnitPlace, userManagersPlace } from './unit-place.ts';

/** What rules look at of a process, dead or alive. */
export interface Matchable {
  readonly pid: number;
  readonly comm: string;
  /** Path of its program; undefined if it cannot be told. */
  readonly exe: string | undefined;
  /** Path of its cgroup as in /proc/PID/cgroup; undefined if it cannot be told. */
  readonly cgroup: string | undefined;
  /** Start time in USER_HZ ticks since boot, as in field 22 of /proc/PID/stat. */
  readonly startTicks: number;
  /**
   * Its user: the real user id, if the saved one is the same. Undefined if they differ, or cannot be told:
   * whoever starts a set-user-ID program chooses its name and is not its owner.
   */
  readonly owner: number | undefined;
}

/** The kernel keeps 15 bytes of a command's name (TASK_COMM_LEN). */
const COMM_BYTES = 15;
/** Others of the same name that are listed. */
const MOST_NAMESAKES = 3;

/**
 * Whether a rule names a process. Anybody can give a process any name, and users make units of any name: a
 * name stands for processes of the rule's user only (root, unless the rule names another), and a unit for the
 * place that its manager has for it.
 */
export function matchesRule(rule: ProtectionRule, process: Matchable): boolean {
  switch (rule.kind) {
    case 'pid':
      return rule.pid === process.pid && rule.startTicks === process.startTicks;
    case 'command':
      return hasName(rule.name, process) && process.owner === (rule.user?.uid ?? 0);
    case 'unit':
      return process.cgroup !== undefined && isInUnit(rule.unit, rule.user?.uid ?? 0, process.cgroup);
  }
}

/** Whether a rule's name is that of a process, or of a cgroup above it, whoever they belong to. */
export function isNamesake(rule: ProtectionRule, process: Matchable): boolean {
  if (rule.kind === 'command') return hasName(rule.name, process);
  return rule.kind === 'unit' && (process.cgroup?.split('/').includes(rule.unit) ?? false);
}

/**
 * What a reader has to know of processes that have a rule's name and are not meant by it; empty if there are
 * none.
 */
export function describeNamesakes(rule: ProtectionRule, namesakes: readonly Matchable[]): string {
  if (namesakes.length === 0) return '';
  const some = namesakes
    .slice(0, MOST_NAMESAKES)
    .map(({ pid, comm, owner, cgroup }) =>
      rule.kind === 'unit' ? `${comm} (${pid}) in ${cgroup}` : `${comm} (${pid}) of ${whose(owner)}`,
    );
  const more = namesakes.length > some.length ? [`${namesakes.length - some.length} more`] : [];
  const hint =
    rule.kind === 'unit'
      ? "only units of the system's manager are meant, and with --user those of that user's"
      : "name another user's with --user, or a service with --unit";
  return `not meant: ${[...some, ...more].join(', ')}; ${hint}`;
}

function whose(owner: number | undefined): string {
  return owner === undefined ? 'more than one user' : `user ${owner}`;
}

function hasName(name: string, { comm, exe }: Matchable): boolean {
  return comm === bytesToText(Buffer.from(name).subarray(0, COMM_BYTES)) || exe?.split('/').at(-1) === name;
}

/** A slice stands for all in it, a unit for all below it. */
function isInUnit(unit: string, uid: number, cgroup: string): boolean {
  const place = systemPlace(cgroup);
  const own = userManagersPlace(place);
  if (own !== undefined && slicesUser(place) === uid && has(own, unit)) return true;
  // A session's number is anybody's after the next boot: it is meant as a session of the rule's user.
  if (place.unit === unit && unit.endsWith('.scope') && slicesUser(place) !== undefined) {
    return slicesUser(place) === uid;
  }
  return uid === 0 && has(place, unit);
}

function has({ slices, unit: found }: UnitPlace, unit: string): boolean {
  return found === unit || slices.includes(unit);
}
