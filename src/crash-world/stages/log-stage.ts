import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { IncidentReport } from '../../report/schema.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { IncidentPlace } from '../incident/incident-place.ts';
import { describePanic, readOldLog } from '../old-kernel.ts';
import { required, stage } from './stage-list.ts';

export const logStage = stage({
  name: 'log',
  needs: { kernel: required<Kernel>() },
  run: ({ kernel }, { panicAt, place, report }) => saveLog(kernel, panicAt, place, report),
});

/** Saves the dead kernel's log, and what it says of the panic. */
export function saveLog(kernel: Kernel, panicAt: bigint, place: IncidentPlace, report: IncidentReport): void {
  const log = readOldLog(kernel);
  // Before the file: a full disk must not hide who panicked from the protection against crash loops.
  report.panic = describePanic(kernel, log, panicAt);
  writeFileSync(join(place.incidents, place.id, 'dmesg.txt'), log.text, { mode: 0o600 });
  if (log.damage !== undefined) report.notes.push(`the dead kernel's log is incomplete: ${log.damage}`);
}
