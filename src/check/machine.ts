import { findProgram, runProgram } from '../arm/command.ts';
import { isCrashKernelLoaded } from '../arm/kexec.ts';
import { isStillLoaded } from '../arm/loaded-mark.ts';
import { readArmed } from '../arm/state.ts';
import { lostOf } from '../arm/status.ts';
import { loadConfig } from '../config/config.ts';
import type { Config } from '../config/schema.ts';
import { type CriuVersion, parseCriuVersion } from '../criu/images/limits.ts';

/** What of this machine decides who would come back. */
export interface Machine {
  /** Whether a crash kernel of ours is loaded; `status` says whether it is stale. */
  readonly isArmed: boolean;
  /** Whether stage zero would save the registers of every CPU. */
  readonly hasStageZero: boolean;
  /** Undefined if there is no CRIU. */
  readonly criu: CriuVersion | undefined;
  /** Of the configuration: the one that the system was armed with, or would be. */
  readonly config: Pick<Config, 'services' | 'losses' | 'protect' | 'images' | 'tmpfs' | 'crash-kernel'>;
}

/** This machine, looked at once however often it is asked for: that runs CRIU, which takes its time. */
export function machineOnce(look: () => Machine = thisMachine): () => Machine {
  let seen: Machine | undefined;
  return () => {
    seen ??= look();
    return seen;
  };
}

/** Looks at this machine. Throws a ConfigError if it is not armed and its configuration is wrong. */
export function thisMachine(): Machine {
  const last = isCrashKernelLoaded() ? readArmed() : undefined;
  const armed = last === undefined || isStillLoaded(last.mark) === false ? undefined : last;
  const hasCriu = findProgram('criu') !== undefined;
  return {
    isArmed: armed !== undefined,
    hasStageZero: armed !== undefined && lostOf(armed) === undefined,
    config: armed?.manifest.config ?? loadConfig(),
    criu: hasCriu ? parseCriuVersion(runProgram('criu', ['--version'])) : undefined,
  };
}
