import { readFileSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import type { Manifest } from '../config/manifest.ts';
import { describeNamesakes, isNamesake, type Matchable, matchesRule } from '../config/match.ts';
import { configuredRules, describeRule, loadRules, type ProtectionRule } from '../config/protection.ts';
import type { Config } from '../config/schema.ts';
import { findUser } from '../system/users.ts';
import { blockBytes, parseIomem, reclaimableRanges } from './iomem.ts';
import { isCrashKernelLoaded, reservedBytes } from './kexec.ts';
import { liveCommandLine, liveProcesses } from './live-processes.ts';
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
  readonly state: 'armed' | 'not armed' | 'armed by another program' | 'stale' | 'crash world';
  /** Why it is stale, what to do. */
  readonly hint: string | undefined;
  readonly armedAt: string | undefined;
  readonly reservedBytes: number;
  readonly neededBytes: number | undefined;
  readonly reclaimableBytes: number | undefined;
  readonly rules: readonly RuleStatus[];
  /** Rules that are lost, because of damage to their file or because their user is gone; a sentence each. */
  readonly ruleProblems: readonly string[];
}

/** Reads the state of arming and what is protected. */
export function readStatus(config: Config): Status {
  const armed = readArmed();
  const loaded = isCrashKernelLoaded();
  const processes = liveProcesses();
  const configured = configuredRules(config, findUser);
  const saved = loadRules();
  const hint =
    armed === undefined || !loaded ? undefined : staleness(armed.manifest, config, configured.rules);
  return {
    kernel: runningRelease(),
    state: stateOf(loaded, armed !== undefined, hint !== undefined),
    hint,
    armedAt: loaded ? armed?.manifest.armedAt : undefined,
    reservedBytes: reservedBytes(),
    neededBytes: armed?.neededBytes,
    reclaimableBytes: armed?.manifest.ranges.reduce((sum, range) => sum + blockBytes(range), 0),
    rules: [...configured.rules, ...saved.rules].map((rule) => ruleStatus(rule, processes)),
    ruleProblems: [...configured.problems, ...saved.problems.map(withRemedy)],
  };
}

function withRemedy(problem: string): string {
  return `${problem}: protect again what it held (otherworld protect keeps the damaged file under another name)`;
}

function stateOf(loaded: boolean, ours: boolean, stale: boolean): Status['state'] {
  if (isCrashWorld()) return 'crash world';
  if (!loaded) return 'not armed';
  if (!ours) return 'armed by another program';
  return stale ? 'stale' : 'armed';
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
