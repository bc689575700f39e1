import { existsSync } from 'node:fs';
import { filterAdvice } from '../capture/left-out.ts';
import { type WrittenCore, writeCore } from '../elf-core/index.ts';
import { uncheckedRelease } from '../linux/kernel-releases.ts';
import { printable } from '../report/printable.ts';
import { beginStep } from '../report/steps.ts';
import { wellFormed } from '../system/byte-text.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { UsageError } from './arguments.ts';
import { openDump } from './open-dump.ts';

/**
 * A core that lacks something that memory had: exit status 3, to be told from one that could not be written.
 */
class IncompleteCoreError extends Error {
  readonly exitStatus = 3;
}

/** Throws a UsageError unless one process is named, and a file that is not there yet. */
export function checkCore(core: string, pids: readonly number[]): number {
  const [pid] = pids;
  if (pid === undefined || pids.length > 1)
    throw new UsageError('--core is of one process: one --pid is wanted');
  if (existsSync(core)) throw new UsageError(`${core} is there already; name a new file with --core`);
  return pid;
}

/** What is in a core, for people. */
export function describeCore(
  core: string,
  { pid, comm, threads, areas, pages, sizeBytes }: WrittenCore,
): string {
  const rest = [
    `${pages.zeros} never touched`,
    ...(pages.unwanted > 0 ? [`${pages.unwanted} left to their files or not wanted`] : []),
    ...(pages.inFile > 0 ? [`${pages.inFile} in their files only`] : []),
  ];
  return [
    `${core}: ${comm} (pid ${pid}), ${threads.length} thread${threads.length === 1 ? '' : 's'}, ${areas} memory areas`,
    `  ${pages.memory} pages of memory; ${rest.join(', ')}; ${(sizeBytes / 2 ** 20).toFixed(1)} MiB with its holes`,
  ].join('\n');
}

function warningsOf(kernel: Kernel, { missing }: WrittenCore): string[] {
  const release = uncheckedRelease(kernel.release);
  const advice = missing.length === 0 ? undefined : filterAdvice(kernel);
  return [...kernel.warnings, release, advice].filter((sentence) => sentence !== undefined);
}

/**
 * `otherworld extract FILE --pid PID --core CORE`: a core is for looking, so no release is refused, and no
 * process for its state.
 */
export function extractCore(file: string, pid: number, core: string, json: boolean): void {
  beginStep(`opening ${file}`);
  const kernel = openDump(file);
  try {
    beginStep(`writing a core of ${pid}`);
    const written = writeCore(kernel, pid, core);
    const warnings = warningsOf(kernel, written);
    if (json) console.log(JSON.stringify({ core, ...written, warnings }, wellFormed, 2));
    else console.log(printable(describeCore(core, written)));
    for (const sentence of [...warnings, ...written.notes, ...written.missing]) {
      process.stderr.write(printable(`otherworld: ${file}: ${sentence}\n`));
    }
    if (written.missing.length > 0) throw new IncompleteCoreError(`${core} is incomplete`);
  } finally {
    kernel.close();
  }
}
