import { stageZeroResult } from '../../capture/index.ts';
import type { IncidentReport } from '../../report/schema.ts';
import type { StageZeroResult } from '../../stage-zero/saved.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { required, step } from './stage-list.ts';

/** What ran before the crash kernel: enters it into the report, and tells which processors it has parked. */
export const stageZeroStep = step({
  name: 'stage-zero',
  needs: { kernel: required<Kernel>() },
  run: ({ kernel }, { report }) => {
    const result = stageZeroResult(kernel);
    if (result === undefined) return { parked: new Set<number>() };
    report.stageZero = inReport(result, tscKilohertz(kernel), kernel.cpus.length);
    return { parked: new Set(result.cpus.keys()) };
  },
});

/** What the report has of it. @param kilohertz of the time stamp counter */
export function inReport(
  { phase, exception, ticks, missing, cpus, problems }: StageZeroResult,
  kilohertz: number | undefined,
  processors: number,
): NonNullable<IncidentReport['stageZero']> {
  const stopped =
    exception === undefined
      ? []
      : [`exception ${exception.vector} at 0x${exception.ip.toString(16)} ended it early`];
  const milliseconds = ticks === undefined || !kilohertz ? undefined : Number((ticks / kilohertz).toFixed(3));
  return {
    phase,
    ...(milliseconds === undefined ? {} : { milliseconds }),
    processors,
    saved: cpus.size,
    missing,
    problems: [...stopped, ...problems],
  };
}

/** Rate of the time stamp counter (arch/x86/kernel/tsc.c). */
function tscKilohertz(kernel: Kernel): number | undefined {
  const symbol = kernel.symbolMaybe('tsc_khz');
  if (symbol === undefined) return undefined;
  try {
    return kernel.memory.u32(symbol);
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return undefined;
  }
}
