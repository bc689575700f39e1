import { readFileSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import type { Manifest } from '../config/manifest.ts';
import { type Matchable, matchesRule } from '../config/match.ts';
import { allRules, describeRule, loadRules, type ProtectionRule } from '../config/protection.ts';
import type { Config } from '../config/schema.ts';
import { blockBytes, parseIomem, reclaimableRanges } from './iomem.ts';
import { isCrashKernelLoaded, reservedBytes } from './kexec.ts';
import { liveProcesses } from './live-processes.ts';
import { isCrashWorld, readArmed } from './state.ts';

/** A rule and the processes that it holds for now, descendants not counted. */
export interface RuleStatus {
  readonly rule: string;
  readonly processes: readonly Pick<Matchable, 'pid' | 'comm'>[];
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
}

/** Reads the state of arming and what is protected. */
export function readStatus(config: Config): Status {
  const armed = readArmed();
  const loaded = isCrashKernelLoaded();
  const processes = liveProcesses();
  const hint = armed === undefined || !loaded ? undefined : staleness(armed.manifest, config);
  return {
    kernel: runningRelease(),
    state: stateOf(loaded, armed !== undefined, hint !== undefined),
    hint,
    armedAt: loaded ? armed?.manifest.armedAt : undefined,
    reservedBytes: reservedBytes(),
    neededBytes: armed?.neededBytes,
    reclaimableBytes: armed?.manifest.ranges.reduce((sum, range) => sum + blockBytes(range), 0),
    rules: allRules(config, loadRules()).map((rule) => ruleStatus(rule, processes)),
  };
}

function stateOf(loaded: boolean, ours: boolean, stale: boolean): Status['state'] {
  if (isCrashWorld()) return 'crash world';
  if (!loaded) return 'not armed';
  if (!ours) return 'armed by another program';
  return stale ? 'stale' : 'armed';
}

/** What the crash world would go by is how things were when it was armed. */
function staleness(manifest: Manifest, config: Config): string | undefined {
  const ranges = reclaimableRanges(parseIomem(readFileSync('/proc/iomem', 'utf8')), manifest.reservedBytes);
  if (!isDeepStrictEqual(ranges, manifest.ranges)) {
    return "the machine's memory has changed since: run otherworld arm again";
  }
  return isDeepStrictEqual(config, manifest.config)
    ? undefined
    : 'the configuration has changed since, and the crash world would not know: run otherworld arm again';
}

function ruleStatus(rule: ProtectionRule, processes: readonly Matchable[]): RuleStatus {
  const matching = processes.filter((process) => matchesRule(rule, process));
  return { rule: describeRule(rule), processes: matching.map(({ pid, comm }) => ({ pid, comm })) };
}
