import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { removeGuest } from './boot.ts';
import { guestNames } from './guest.ts';
import { repositoryRoot } from './node-tree.ts';
import type { Release } from './release.ts';

/** Which tests to run. */
export interface TestSelection {
  /** Only files whose path contains this. */
  filter: string;
  unit: boolean;
  /** Guest tests run once for each of these. */
  guestReleases: readonly Release[];
}

/** What the runs so far came to. */
interface Tally {
  passed: number;
  failed: number;
  skipped: number;
  /** A line for each test that failed: where it is, its name and what it said. */
  failures: string[];
}

/**
 * A guest keeps two cores busy for a part of its time only: booting is the work of one CPU, and tests wait. More than two
 * would make each other late on the two cores that tests have to get by with.
 */
const GUESTS_AT_ONCE = 2;

/** Names of guests that tests boot begin with this, so that none outlives the run, whatever its test did. */
export const testGuestPrefix = (runId: string): string => `test-${runId}-`;

/**
 * Runs the tests and ends with a line of counts.
 * @returns the exit status: 0 if something ran and nothing failed
 */
export async function runTests(selection: TestSelection): Promise<number> {
  const runId = String(process.pid);
  process.env.OTHERWORLD_TEST_RUN = runId;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopAt(signal, runId));
  const files = testFiles(selection.filter);
  const guestFiles = files.filter(isGuestTest);
  const tally: Tally = { passed: 0, failed: 0, skipped: 0, failures: [] };
  try {
    if (selection.unit) {
      await runFiles(
        files.filter((file) => !isGuestTest(file)),
        availableParallelism(),
        tally,
      );
    }
    for (const release of guestFiles.length > 0 ? selection.guestReleases : []) {
      console.log(`\nGuests with Debian ${release}`);
      process.env.OTHERWORLD_TEST_RELEASE = release;
      await runFiles(guestFiles, GUESTS_AT_ONCE, tally, ` on ${release}`);
    }
  } finally {
    await removeLeftGuests(runId);
  }
  const { passed, failed, skipped, failures } = tally;
  if (failures.length > 0) console.log(`\nFailed:\n${failures.map((line) => `  ${line}`).join('\n')}\n`);
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  if (passed + failed === 0) console.error('otherworld: no test matches');
  return failed === 0 && passed > 0 ? 0 : 1;
}

function testFiles(filter: string): string[] {
  return globSync('test/**/*.test.ts', { cwd: repositoryRoot })
    .sort()
    .map((file) => join(repositoryRoot, file))
    .filter((file) => relative(repositoryRoot, file).includes(filter));
}

function isGuestTest(file: string): boolean {
  return relative(repositoryRoot, file).startsWith('test/guest/');
}

/** Every file runs in a process of its own. */
async function runFiles(
  files: readonly string[],
  concurrency: number,
  tally: Tally,
  where = '',
): Promise<void> {
  if (files.length === 0) return;
  const stream = run({ files: [...files], concurrency, cwd: repositoryRoot });
  stream.on('test:summary', (summary) => {
    if (summary.file !== undefined) return;
    tally.passed += summary.counts.passed;
    tally.failed +=
      summary.counts.tests - summary.counts.passed - summary.counts.skipped - summary.counts.todo;
    tally.skipped += summary.counts.skipped;
  });
  stream.on('test:fail', ({ name, file, line, details }) => {
    // A suite fails with its tests, and they have lines of their own.
    if ('failureType' in details.error && details.error.failureType === 'subtestsFailed') return;
    const place = file === undefined ? '' : `${relative(repositoryRoot, file)}:${line}${where}: `;
    tally.failures.push(`${place}${name}: ${messageOf(details.error)}`);
  });
  const output = stream.compose(spec());
  output.pipe(process.stdout, { end: false });
  await new Promise<void>((resolve, reject) => output.on('end', resolve).on('error', reject));
}

/** In one line, of 300 characters at most. The runner wraps what a test has thrown. */
const messageOf = (error: Error): string =>
  (error.cause instanceof Error ? error.cause : error).message.replace(/\s+/g, ' ').slice(0, 300);

/** A run that is broken off ends its guests, too. */
function stopAt(signal: 'SIGINT' | 'SIGTERM', runId: string): void {
  removeLeftGuests(runId).finally(() => process.kill(process.pid, signal));
}

async function removeLeftGuests(runId: string): Promise<void> {
  for (const name of guestNames()) {
    if (name.startsWith(testGuestPrefix(runId))) await removeGuest(name);
  }
}
