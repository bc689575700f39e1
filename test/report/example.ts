import type { IncidentReport } from '../../src/report/schema.ts';

/** A report of an incident in which nothing has happened yet. */
export function emptyReport(): IncidentReport {
  return {
    version: 1,
    id: '2026-01-01T12-00-00Z',
    state: 'settled',
    crashKernelRelease: '6.12.0',
    stages: [],
    processes: [],
    unmatchedRules: [],
    memory: { reservedBytes: 320 * 2 ** 20, peakUsedBytes: 176 * 2 ** 20, reclaimedBytes: 2 ** 30 },
    errors: [],
    notes: [],
  };
}
