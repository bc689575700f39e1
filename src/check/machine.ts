import { findProgram, runProgram } from '../arm/command.ts';
import { isCrashKernelLoaded } from '../arm/kexec.ts';
import { readArmed } from '../arm/state.ts';
import { lostOf } from '../arm/status.ts';
import { type CriuVersion, parseCriuVersion } from '../criu/images/index.ts';

/** What of this machine decides who would come back. */
export interface Machine {
  /** Whether `arm` has loaded a crash kernel; whether that is stale, `status` says. */
  readonly isArmed: boolean;
  /** Whether stage zero would save the registers of every CPU. */
  readonly hasStageZero: boolean;
  /** Undefined if there is no CRIU. */
  readonly criu: CriuVersion | undefined;
}

/** Looks at this machine. */
export function thisMachine(): Machine {
  const armed = isCrashKernelLoaded() ? readArmed() : undefined;
  const hasCriu = findProgram('criu') !== undefined;
  return {
    isArmed: armed !== undefined,
    hasStageZero: armed !== undefined && lostOf(armed) === undefined,
    criu: hasCriu ? parseCriuVersion(runProgram('criu', ['--version'])) : undefined,
  };
}
