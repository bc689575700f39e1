import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { getCompileCacheDir } from 'node:module';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { removeGuest } from './boot.ts';
import { whenBrokenOff } from './broken-off.ts';
import { guestNames } from './guest.ts';
import { checkImages } from './image.ts';
import { repositoryRoot } from './node-tree.ts';
import type { Release } from './release.ts';

/** Which tests to run. */
export interface TestSelection {
  /** Only files whose path contains this. */
  filter: string;
  unit: boolean;
  /** Guest tests run on these. */
  guestReleases: readonly Release[];
  /**
   * `quick`: on the first of the releases alone, but for the files of ON_EVERY_RELEASE. `all`: every file on
   * each of them.
   */
  extent: 'quick' | 'all';
}

/**
 * Files of guest tests about what differs from kernel to kernel and from CRIU to CRIU: the structures that
 * are read, the images, and what a whole panic makes of them.
 */
const ON_EVERY_RELEASE: ReadonlySet<string> = new Set(
  ['kernel-stack', 'process', 'resurrection', 'stage-zero'].map(guestTest),
);

function guestTest(name: string): string {
  return `test/guest/${name}.test.ts`;
}

/**
 * Files of guest tests that take longest without KVM, the longest first: begun last, one of them would run on
 * long after all others. But for the second: its guests are not armed, so that what arming builds, minutes of
 * work in an emulated guest, is not built by two at the same time.
 */
export const LONGEST: readonly string[] = [
  'arming',
  'process',
  'server',
  'adoption',
  'swap',
  'panic',
  'resurrection',
  'stage-zero',
  'connections',
  'crash-procedure',
  'incident',
].map(guestTest);

/** What the runs so far came to. */
interface Tally {
  passed: number;
  failed: number;
  skipped: number;
  /** A line for each test that failed: where it is, its name and what it said. */
  failures: string[];
}

/**
 * A guest keeps two cores busy for a part of its time only: booting is the work of one CPU, and tests wait.
 * More than two would make each other late on the two cores that tests have to get by with.
 */
const GUESTS_AT_ONCE = 2;

/** A file of tests in guests of one release. */
interface GuestJob {
  readonly file: string;
  readonly release: Release;
}

/** Names of guests that tests boot begin with this, so that none outlives the run, whatever its test did. */
export const testGuestPrefix = (runId: string): string => `test-${runId}-`;

/**
 * Runs the tests and ends with a line of counts.
 * @throws LabError if guests are wanted and cannot be had
 * @returns the exit status: 0 if something ran and nothing failed
 */
export async function runTests(selection: TestSelection): Promise<number> {
  const files = testFiles(selection.filter);
  const guestFiles = longestFirst(files.filter(isGuestTest));
  if (guestFiles.length > 0) checkImages(selection.guestReleases, '; --unit runs the tests without guests');
  const runId = String(process.pid);
  process.env.OTHERWORLD_TEST_RUN = runId;
  process.env.OTHERWORLD_TEST_EXTENT = selection.extent;
  whenBrokenOff(() => {
    brokenOff.abort();
    return removeLeftGuests(runId);
  });
  const tally: Tally = { passed: 0, failed: 0, skipped: 0, failures: [] };
  try {
    if (selection.unit) {
      await runUnitTests(
        files.filter((file) => !isGuestTest(file)),
        tally,
      );
    }
    // The releases of a file are neighbours, so that two guests are at work up to the end.
    await runInGuests(
      guestFiles.flatMap((file) => releasesFor(file, selection).map((release) => ({ file, release }))),
      tally,
    );
  } finally {
    await removeLeftGuests(runId);
  }
  const { passed, failed, skipped, failures } = tally;
  if (failures.length > 0) console.log(`\nFailed:\n${failures.map((line) => `  ${line}`).join('\n')}\n`);
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  if (passed + failed === 0) console.error('otherworld: no test matches');
  return failed === 0 && passed > 0 ? 0 : 1;
}

function releasesFor(file: string, { extent, guestReleases }: TestSelection): readonly Release[] {
  const isEverywhere = extent === 'all' || ON_EVERY_RELEASE.has(relative(repositoryRoot, file));
  return isEverywhere ? guestReleases : guestReleases.slice(0, 1);
}

/** Paths in the order in which they are to be begun; those that are not among the longest keep theirs. */
export function longestFirst(files: readonly string[]): string[] {
  const place = (file: string): number => {
    const index = LONGEST.indexOf(relative(repositoryRoot, file));
    return index === -1 ? LONGEST.length : index;
  };
  return files.toSorted((one, other) => place(one) - place(other));
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

/** A search for what breaks a reader: such a file takes longer than most. */
const isSearch = (file: string): boolean =>
  /searchOf\(|OTHERWORLD_FUZZ_RUNS/.test(readFileSync(file, 'latin1'));

/**
 * Unit tests share a process for each CPU, which takes one file after the other. Those that take long come
 * first, so that no process ends long before another.
 */
async function runUnitTests(files: readonly string[], tally: Tally): Promise<void> {
  const ordered = [...files.filter(isSearch), ...files.filter((file) => !isSearch(file))];
  const processes = Math.min(availableParallelism(), files.length);
  const [first, others] = [ordered.slice(0, processes), ordered.slice(processes)];
  const claims = mkdtempSync(join(tmpdir(), 'otherworld-tests-'));
  // What one process has compiled, the others and what they start need not.
  const cache = { NODE_COMPILE_CACHE: getCompileCacheDir() };
  const env = { ...process.env, ...cache, OTHERWORLD_TEST_CLAIMS: claims };
  const shard = join(repositoryRoot, 'lab/unit-shard.ts');
  const write = (text: string): void => void process.stdout.write(text);
  try {
    await inLanes(processes, first, (own) =>
      runFiles({ files: [shard], argv: [own, ...others], env }, tally, write),
    );
  } finally {
    rmSync(claims, { recursive: true });
  }
}

async function runInGuests(jobs: readonly GuestJob[], tally: Tally): Promise<void> {
  await inLanes(GUESTS_AT_ONCE, jobs, (job) => runInGuest(job, tally));
}

/** Does all jobs, so many at a time. @throws what one of them threw, when all have ended */
async function inLanes<T>(lanes: number, jobs: readonly T[], run: (job: T) => Promise<void>): Promise<void> {
  const waiting = jobs.values();
  const lane = async (): Promise<void> => {
    for (const job of waiting) if (!brokenOff.signal.aborted) await run(job);
  };
  const results = await Promise.allSettled(Array.from({ length: lanes }, lane));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** What the file's tests say is printed when they are done, and not among what others say. */
async function runInGuest({ file, release }: GuestJob, tally: Tally): Promise<void> {
  const title = `${relative(repositoryRoot, file)} on Debian ${release}`;
  console.log(`${title} ...`);
  const env = { ...process.env, OTHERWORLD_TEST_RELEASE: release };
  const start = performance.now();
  let said = '';
  const keep = (text: string): void => {
    said += text;
  };
  await runFiles({ files: [file], env }, tally, keep, ` on ${release}`);
  console.log(`\n${title}: ${Math.round((performance.now() - start) / 1000)} s\n${said}`);
}

/** A run that is broken off ends its tests and guests, too. */
const brokenOff = new AbortController();

/** Every file runs in a process of its own; what the tests say is given to `write`. */
async function runFiles(
  options: { files: string[]; argv?: readonly string[]; env?: NodeJS.ProcessEnv },
  tally: Tally,
  write: (text: string) => void,
  where = '',
): Promise<void> {
  const { signal } = brokenOff;
  const stream = run({ ...options, argv: [...(options.argv ?? [])], cwd: repositoryRoot, signal });
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
  for await (const text of stream.compose(spec())) write(String(text));
}

/** In one line, of 300 characters at most. The runner wraps what a test has thrown. */
const messageOf = (error: Error): string =>
  (error.cause instanceof Error ? error.cause : error).message.replace(/\s+/g, ' ').slice(0, 300);

async function removeLeftGuests(runId: string): Promise<void> {
  for (const name of guestNames()) {
    if (name.startsWith(testGuestPrefix(runId))) await removeGuest(name);
  }
}
