import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { captureProcesses } from '../capture/index.ts';
import { dumpProblems, filterAdvice } from '../capture/left-out.ts';
import {
  type ImageSummary,
  restoreProblems,
  wholeGroup,
  writeImages,
  writeWhole,
} from '../criu/images/index.ts';
import { uncheckedRelease } from '../linux/kernel-releases.ts';
import type { EndedProcess, ProcessGroup } from '../model/group.ts';
import { type Refusal, verdictOf } from '../model/verdict.ts';
import { groupReasons } from '../report/causes.ts';
import { printable } from '../report/printable.ts';
import { beginStep } from '../report/steps.ts';
import { wellFormed } from '../system/byte-text.ts';
import { UsageError, wholeNumber } from './arguments.ts';
import { checkCore, extractCore } from './extract-core.ts';
import { openDump } from './open-dump.ts';

interface Options {
  readonly pid: readonly number[];
  readonly out?: string;
  readonly core?: string;
  readonly unchecked?: boolean;
  readonly json?: boolean;
}

interface Extracted {
  readonly group: ProcessGroup;
  readonly images: ImageSummary;
}

/** Some processes could not be extracted: exit status 3, to be told from errors in reading the file. */
class RefusedError extends Error {
  readonly exitStatus = 3;
}

/** The dump is of a kernel that was not checked. */
class UncheckedError extends Error {}

function pids(value: string, before: readonly number[] = []): number[] {
  return [...before, wholeNumber(value)];
}

/** Throws a UsageError if there is something already where images are to be. */
export function checkDirectory(directory: string): void {
  if (!existsSync(directory)) return;
  if (!statSync(directory).isDirectory()) {
    throw new UsageError(`${directory} is not a directory; name a new one with --out`);
  }
  if (readdirSync(directory).length > 0) {
    throw new UsageError(`${directory} is not empty; name a new directory with --out`);
  }
}

/** Images from a kernel that nobody has checked are made on request only. */
function checkRelease(file: string, release: string, allowed: boolean): void {
  const problem = uncheckedRelease(release);
  if (problem === undefined) return;
  if (!allowed) throw new UncheckedError(`${file}: ${problem}; --unchecked extracts all the same`);
  process.stderr.write(printable(`otherworld: ${file}: ${problem}\n`));
}

/** What became of the processes. */
interface Found {
  readonly extracted: readonly Extracted[];
  readonly refused: readonly Refusal[];
  readonly ended: readonly EndedProcess[];
}

function toJson({ extracted, refused, ended }: Found, warnings: readonly string[]): string {
  const groups = extracted.map(({ group, images }) => ({
    directory: images.directory,
    roots: images.roots,
    sizeBytes: images.sizeBytes,
    pagesBytes: images.pagesBytes,
    processes: group.processes.map(({ pid, ppid, comm, state, threads, findings }) => ({
      ...{ pid, ppid, comm, state },
      verdict: verdictOf(findings),
      threads: threads.map(({ tid, comm: name, syscall }) => ({ tid, comm: name, ...syscall })),
      checks: findings.checks,
      repairs: findings.repairs,
      inDoubt: findings.inDoubt,
      notes: findings.notes,
    })),
  }));
  const without = refused.map(({ pid, comm, reasons }) => ({ pid, comm, reasons }));
  return JSON.stringify({ groups, refused: without, ended, warnings }, wellFormed, 2);
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

/** Names and reasons may hold escape sequences of anybody's making. */
function say(line: string): void {
  console.log(printable(line));
}

function print({ extracted, refused, ended }: Found): void {
  for (const { group, images } of extracted) {
    say(`${images.directory}: ${images.files.length} images, ${mebibytes(images.sizeBytes)}`);
    for (const { pid, comm, state, threads, findings } of group.processes) {
      const what =
        state === 'zombie' ? 'zombie' : `${threads.length} thread${threads.length === 1 ? '' : 's'}`;
      say(`  ${String(pid).padStart(7)}  ${comm.padEnd(16)} ${verdictOf(findings)}, ${what}`);
      for (const { what: subject, used } of findings.repairs) say(`           ${subject}: ${used} used`);
      for (const { tid, syscall, reason } of findings.inDoubt) {
        say(`           in doubt: ${syscall} of thread ${tid}: ${reason}`);
      }
      for (const { text } of groupReasons(findings.notes)) say(`           ${text}`);
    }
  }
  for (const { pid, comm, reasons } of refused) {
    say(`refused ${String(pid).padStart(7)}  ${comm}`);
    for (const { text } of groupReasons(reasons)) say(`           ${text}`);
  }
  for (const { pid, comm, notes } of ended) {
    say(`ended   ${String(pid).padStart(7)}  ${comm}`);
    for (const note of notes) say(`           ${note}`);
  }
}

function extract(file: string, { pid, out, core, unchecked, json }: Options): void {
  if (core !== undefined) {
    if (out !== undefined) throw new UsageError('--out is for images and --core for a core: one of the two');
    extractCore(file, checkCore(core, pid), core, json === true);
    return;
  }
  if (out === undefined) throw new UsageError('where to? --out DIR for images, or --core FILE for a core');
  extractImages(file, { pid, out, unchecked, json });
}

interface ImageOptions {
  readonly pid: readonly number[];
  readonly out: string;
  readonly unchecked: boolean | undefined;
  readonly json: boolean | undefined;
}

function extractImages(file: string, { pid, out, unchecked, json }: ImageOptions): void {
  checkDirectory(out);
  beginStep(`opening ${file}`);
  const kernel = openDump(file);
  try {
    checkRelease(file, kernel.release, unchecked === true);
    beginStep(`capturing ${pid.join(', ')} and descendants`);
    const captured = captureProcesses(kernel, { roots: pid, includeDescendants: true });
    const groups: ProcessGroup[] = [];
    const refused = [...captured.refused];
    for (const group of captured.groups) {
      const problems = [...restoreProblems(group, undefined), ...dumpProblems(kernel, group)];
      if (problems.length === 0) groups.push(group);
      else refused.push(...wholeGroup(group, problems));
    }
    const place = (directory: string, { id }: ProcessGroup) =>
      groups.length === 1 ? directory : join(directory, String(id));
    const write = (directory: string) =>
      groups.map((group) => {
        beginStep(`writing images of ${group.processes.map((process) => process.pid).join(', ')}`);
        return { group, images: writeImages(group, kernel.physical, place(directory, group)) };
      });
    const written = groups.length === 0 ? [] : writeWhole(out, write);
    const extracted = written.map(({ group, images }) => ({
      group,
      images: { ...images, directory: place(out, group) },
    }));
    const advice = refused.length === 0 ? undefined : filterAdvice(kernel);
    const warnings = [...kernel.warnings, ...(advice === undefined ? [] : [advice])];
    for (const warning of warnings) process.stderr.write(printable(`otherworld: ${file}: ${warning}\n`));
    const found = { extracted, refused, ended: captured.ended };
    if (json === true) console.log(toJson(found, warnings));
    else print(found);
    if (refused.length > 0) {
      throw new RefusedError(`${refused.length} of the processes cannot be brought back`);
    }
  } finally {
    kernel.close();
  }
}

/** Registers `otherworld extract`. */
export function registerExtract(program: Command): void {
  program
    .command('extract')
    .description('write CRIU images of processes from a vmcore, or a core of one for a debugger')
    .argument('<file>', 'vmcore: ELF, kdump-compressed, or /proc/vmcore')
    .requiredOption(
      '--pid <pid>',
      'process to extract with its descendants; may be repeated (a core is of one process or thread)',
      pids,
    )
    .option('--out <dir>', 'new directory for the images; with several groups, one below it for each')
    .option('--core <file>', 'instead of images: a new file for an ELF core of the process, for gdb')
    .option('--unchecked', 'extract also from a kernel of a series that was not checked')
    .option('--json', 'print what was found as JSON; its fields are in docs/inspect.md')
    .addHelpText(
      'after',
      `
Exit status: 0 all were extracted, 1 error (no output is left), 2 wrong command line, 3 some were refused, each with
its reasons, or the core lacks something, which standard error names.

Examples:
  otherworld extract vmcore --pid 812 --out images
  otherworld extract vmcore --pid 812 --core core.812 && gdb /usr/bin/program core.812`,
    )
    .action(extract);
}
