import { readFileSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import { generalLosses } from '../config/losses.ts';
import type { Armed, Manifest } from '../config/manifest.ts';
import { describeNamesakes, isNamesake, type Matchable, matchesRule } from '../config/match.ts';
import { CACHE_DIRECTORY } from '../config/paths.ts';
import { configuredRules, describeRule, loadRules, type ProtectionRule } from '../config/protection.ts';
import type { Config, LossKind } from '../config/schema.ts';
import { isLocked } from '../system/directory-lock.ts';
import { findUser } from '../system/users.ts';
import { blockBytes, parseIomem, reclaimableRanges } from './iomem.ts';
import { isCrashKernelLoaded, reservedBytes } from './kexec.ts';
import { lostComputing, newProcessors } from './lacking.ts';
import { liveCommandLine, liveProcesses } from './live-processes.ts';
import { isStillLoaded, type LoadedMark } from './loaded-mark.ts';
import { loadedStageZeroDamage } from './loaded-stage-zero.ts';
import { encryptionProblem } from './memory-encryption.ts';
import { protectedNeed } from './protected-need.ts';
import { lookAtRoom, type RoomFound } from './room-for-images.ts';
import { isCrashWorld, readArmed } from './state.ts';

/** A process that a rule holds for. */
export interface ProtectedProcess extends Pick<Matchable, 'pid' | 'comm'> {
  /** Its arguments with blanks between them, cut: the kernel keeps 15 letters of a name only. */
  readonly commandLine: string | undefined;
}

/** A rule and the processes that it holds for now, descendants not counted. */
export interface RuleStatus {
  readonly rule: string;
  readonly processes: readonly ProtectedProcess[];
  /** Where it holds none: processes of that name that are not meant, and what would name them. */
  readonly hint?: string;
}

/** What `otherworld status` tells. Sizes are in bytes. */
export interface Status {
  readonly kernel: string;
  /** `crash world`: the processes live here after a panic, and another one would not be survived. */
  readonly state:
    | 'armed'
    | 'not armed'
    | 'armed by another program'
    | 'cannot tell'
    | 'stale'
    | 'crash world';
  /** Another `otherworld` arms, disarms or builds at this moment: what this says may soon be otherwise. */
  readonly isAtWork: boolean;
  /** Why it is stale or cannot be told, what to do. */
  readonly hint: string | undefined;
  readonly armedAt: string | undefined;
  readonly reservedBytes: number;
  /** For the crash world, and the processes that are protected now. */
  readonly neededBytes: number | undefined;
  /** That more is needed than is reserved, and what to do; undefined if it is enough. */
  readonly memoryProblem: string | undefined;
  readonly reclaimableBytes: number | undefined;
  /** What is written to `images.directory` after a panic, as things are now. */
  readonly images: {
    readonly directory: string;
    /** For the processes that are protected now; undefined, as the others, if it cannot be told. */
    readonly neededBytes: number | undefined;
    /** For files on tmpfs that none of them uses. */
    readonly tmpfsBytes: number | undefined;
    /** On the file system of the directory: what root can write. */
    readonly freeBytes: number | undefined;
    /** That protected processes would not come back for lack of room, and what to do; undefined if none. */
    readonly problem: string | undefined;
    /** That files on tmpfs would be lost for it, and what to do. */
    readonly tmpfsProblem: string | undefined;
  } & Pick<RoomFound, 'rateProblem' | 'unknown'>;
  /** That memory is encrypted and could not be read after a panic, and what to do; undefined if not known. */
  readonly encryptionProblem: string | undefined;
  /** Which processes that compute at a panic would be lost, and why: a sentence; undefined if none. */
  readonly lostComputing: string | undefined;
  readonly rules: readonly RuleStatus[];
  /** What every protected process may lose, by the configuration. */
  readonly mayLose: readonly LossKind[];
  /** Rules that are lost, because of damage to their file or because their user is gone; a sentence each. */
  readonly ruleProblems: readonly string[];
}

/** States in which what is loaded is, or may be, what `arm` loaded. */
const OURS: ReadonlySet<Status['state']> = new Set(['armed', 'cannot tell', 'stale']);

/** Reads the state of arming and what is protected. */
export function readStatus(config: Config): Status {
  const armed = readArmed();
  const loaded = isCrashKernelLoaded();
  const processes = liveProcesses();
  const configured = configuredRules(config, findUser);
  const saved = loadRules();
  const rules = [...configured.rules, ...saved.rules];
  const named = namedBy(rules, processes);
  const neededBytes = armed === undefined ? undefined : Math.ceil(armed.neededBytes + protectedNeed(named));
  const { state, hint } = loaded
    ? stateOf(armed, (manifest) => staleness(manifest, config, configured.rules))
    : { state: 'not armed' as const, hint: undefined };
  return {
    kernel: runningRelease(),
    state: isCrashWorld() ? 'crash world' : state,
    isAtWork: isLocked(CACHE_DIRECTORY),
    hint,
    armedAt: loaded ? armed?.manifest.armedAt : undefined,
    reservedBytes: reservedBytes(),
    neededBytes,
    memoryProblem: memoryProblem(neededBytes, reservedBytes()),
    reclaimableBytes: armed?.manifest.ranges.reduce((sum, range) => sum + blockBytes(range), 0),
    images: imagesStatus(named, config),
    encryptionProblem: isCrashWorld() ? undefined : encryptionProblem(),
    lostComputing: armed !== undefined && OURS.has(state) ? lostOf(armed) : undefined,
    mayLose: generalLosses(config),
    rules: rules.map((rule) => ruleStatus(rule, processes)),
    ruleProblems: [...configured.problems, ...saved.problems.map(withRemedy)],
  };
}

/** What is lost by how it was loaded, and by what came since. */
export function lostOf(
  { lacking, stageZeroAddress, apicIds }: Pick<Armed, 'lacking' | 'stageZeroAddress' | 'apicIds'>,
  root = '/',
): string | undefined {
  const damage = stageZeroAddress === undefined ? undefined : loadedStageZeroDamage(stageZeroAddress, root);
  return lostComputing({
    ...lacking,
    stageZero: lacking.stageZero ?? damage,
    newProcessors: newProcessors(apicIds, root),
  });
}

/** The pids of the processes that rules hold for. */
function namedBy(rules: readonly ProtectionRule[], processes: readonly Matchable[]): number[] {
  const named = processes.filter((process) => rules.some((rule) => matchesRule(rule, process)));
  return named.map(({ pid }) => pid);
}

/** The pids of the processes that are protected now, without their descendants. */
export function protectedNow(config: Pick<Config, 'protect'>): number[] {
  const rules = [...configuredRules(config, findUser).rules, ...loadRules().rules];
  return namedBy(rules, liveProcesses());
}

function imagesStatus(named: readonly number[], config: Config): Status['images'] {
  const found = lookAtRoom(() => named, config);
  const { problem, tmpfsProblem, rateProblem, unknown } = found;
  const sizes =
    found.need === undefined
      ? { neededBytes: undefined, tmpfsBytes: undefined, freeBytes: undefined }
      : {
          neededBytes: found.need.processes.bytes,
          tmpfsBytes: found.need.tmpfsBytes,
          freeBytes: found.room.bytes,
        };
  return { directory: config.images.directory, ...sizes, problem, tmpfsProblem, rateProblem, unknown };
}

/**
 * What to say where the processes that are protected now need more than there is; undefined where they do
 * not.
 */
export function memoryProblem(neededBytes: number | undefined, reserved: number): string | undefined {
  if (neededBytes === undefined || neededBytes <= reserved) return undefined;
  return (
    `the processes that are protected now may need ${mebibytes(neededBytes)} MiB in the crash world, and ` +
    `${mebibytes(reserved)} are reserved: boot with crashkernel=${Math.ceil(mebibytes(neededBytes) / 32) * 32}M, or protect fewer`
  );
}

function mebibytes(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20);
}

function withRemedy(problem: string): string {
  return `${problem}: protect again what it held (otherworld protect keeps the damaged file under another name)`;
}

/**
 * What the loaded crash kernel is.
 * @param armed what `arm` noted of what it loaded on this boot; undefined if it loaded nothing
 * @param isLoaded looks whether that is what is loaded now
 */
export function stateOf(
  armed: Armed | undefined,
  staleness: (manifest: Manifest) => string | undefined,
  isLoaded: (mark: LoadedMark) => boolean | string = isStillLoaded,
): Pick<Status, 'state' | 'hint'> {
  const ours = armed === undefined ? false : isLoaded(armed.mark);
  if (armed === undefined || ours === false) return { state: 'armed by another program', hint: undefined };
  const hint = staleness(armed.manifest);
  if (hint !== undefined) return { state: 'stale', hint };
  return ours === true ? { state: 'armed', hint } : { state: 'cannot tell', hint: ours };
}

/** What the crash world would go by is how things were when it was armed. */
function staleness(manifest: Manifest, config: Config, rules: readonly ProtectionRule[]): string | undefined {
  const ranges = reclaimableRanges(parseIomem(readFileSync('/proc/iomem', 'utf8')), manifest.reservedBytes);
  if (!isDeepStrictEqual(ranges, manifest.ranges)) {
    return "the machine's memory has changed since: run otherworld arm again";
  }
  return isDeepStrictEqual(config, manifest.config) && isDeepStrictEqual(rules, manifest.rules)
    ? undefined
    : 'the configuration has changed since, and the crash world would not know: run otherworld arm again';
}

function ruleStatus(rule: ProtectionRule, processes: readonly Matchable[]): RuleStatus {
  const matching = processes.filter((process) => matchesRule(rule, process));
  const others =
    matching.length > 0
      ? ''
      : describeNamesakes(
          rule,
          processes.filter((process) => isNamesake(rule, process)),
        );
  return {
    rule: describeRule(rule),
    processes: matching.map(({ pid, comm }) => ({ pid, comm, commandLine: liveCommandLine(pid) })),
    ...(others === '' ? {} : { hint: others }),
  };
}
