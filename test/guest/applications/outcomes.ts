import assert from 'node:assert/strict';
import type { ProcessReport } from '../../../src/report/schema.ts';

/** All of them came back, with all that they had, and there are some. */
export function assertWhole(processes: readonly ProcessReport[]): void {
  assert.ok(processes.length > 0);
  for (const { comm, outcome, fate, reasons } of processes) {
    const expected = { comm, outcome: 'restored', fate: 'whole', reasons: [] };
    assert.deepEqual({ comm, outcome, fate, reasons }, expected);
  }
}
