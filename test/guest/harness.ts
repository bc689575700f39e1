import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bootArmedGuest } from '../../lab/armed.ts';
import { bootGuest, removedOnFailure, removeGuest } from '../../lab/boot.ts';
import { copyFiles, type ExecOptions, execCaptured } from '../../lab/channel.ts';
import type { CommandResult } from '../../lab/command.ts';
import { consoleTail } from '../../lab/console-log.ts';
import { type Fault, overwriteMemory } from '../../lab/fault.ts';
import type { Furniture } from '../../lab/furnish.ts';
import { guestPaths } from '../../lab/guest.ts';
import { armGuest, installOtherworld } from '../../lab/install.ts';
import type { GuestOptions } from '../../lab/machine.ts';
import { panicGuest } from '../../lab/panic.ts';
import { type Progress, stderrProgress } from '../../lab/progress.ts';
import { withQmp } from '../../lab/qmp.ts';
import { parseRelease, type Release, releases } from '../../lab/release.ts';
import { testGuestPrefix } from '../../lab/test-run.ts';
import { dumpGuest } from '../../lab/vmcore.ts';
import type { CaptureResult } from '../../src/model/group.ts';
import { type IncidentReport, reportSchema } from '../../src/report/schema.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { quote, retry, shell } from './shell.ts';

/** The Debian release that this run of the tests is about: `otherworld test` runs them once for each. */
export const release: Release = parseRelease(process.env.OTHERWORLD_TEST_RELEASE ?? 'trixie');

/** Whether the tests of this run are to leave nothing out: `otherworld test --all`. */
export const isWhole = process.env.OTHERWORLD_TEST_EXTENT === 'all';

/** What a test's guest is to be like. */
export interface TestGuestOptions {
  memoryMiB?: number;
  cpus?: number;
  crashKernelMiB?: number;
  /** NUMA nodes, disks, users and numbers of processes. */
  furniture?: Furniture;
  /** Ports of this host that lead into the guest. */
  forwards?: readonly { readonly host: number; readonly guest: number }[];
  /** Debian packages besides those that all have: an image of its own. */
  packages?: readonly string[];
  /** More arguments for QEMU. */
  devices?: readonly string[];
  /** More kernel parameters. */
  append?: string;
  /** Content of /etc/otherworld/otherworld.toml. */
  configuration?: string;
  /** `false`: Otherworld is installed, no crash kernel is loaded. */
  arm?: boolean;
  /** `false`: boots from the beginning, where else a snapshot of a guest that has booted may do. */
  quick?: boolean;
  /** `false`: a bare guest, without Otherworld's sources. */
  install?: boolean;
}

/** A guest of a test, to be ended with `down` in an `after` hook. */
export interface TestGuest {
  readonly name: string;
  /** Runs a command; whatever its exit status is, it is returned. */
  exec(
    command: readonly string[],
    options?: ExecOptions & { input?: string | Buffer },
  ): Promise<CommandResult>;
  /** Runs a shell script and returns its output without the last newline; fails the test if it fails. */
  sh(script: string, timeoutSeconds?: number): Promise<string>;
  /** Starts a shell script that lives on in the background, cut off from this connection. Returns its pid. */
  background(script: string): Promise<number>;
  /** Runs the script again and again until it succeeds; for about `seconds` of the guest's own time. */
  until(script: string, seconds: number): Promise<string>;
  /** Waits until a process has stopped, sleeps ... : a letter of /proc/PID/stat, or several. */
  untilState(pid: number, letters: string, seconds?: number): Promise<void>;
  /**
   * Protects processes, by one rule each. Once for all of them: each time the command has to start, and to
   * look at the living kernel, which takes an emulated guest many seconds.
   */
  protect(pids: readonly number[]): Promise<void>;
  /** Ends processes and waits until they are gone. */
  kill(pids: readonly number[]): Promise<void>;
  copyIn(source: string, destination: string): Promise<void>;
  copyOut(source: string, destination: string): Promise<void>;
  /** Compiles a C program of test/guest/programs, which the guest then has as a command of that name. */
  program(name: string): Promise<void>;
  /** Writes the guest's memory as an ELF vmcore. */
  vmcore(file: string): Promise<number>;
  /**
   * Dumps the guest's memory to a file, again and again until `find` finds in it the state that the test is
   * about.
   * @returns what it finds
   */
  dumpUntil<T>(file: string, find: (kernel: Kernel) => T | undefined): Promise<T>;
  /** Overwrites physical memory. */
  overwrite(physical: number, bytes: Buffer): Promise<void>;
  /**
   * Kills the kernel, on one of its CPUs if that matters, waits for the crash world and returns its report.
   */
  panic(fault?: Fault, cpu?: number): Promise<IncidentReport>;
  /** What QEMU's monitor answers, about one CPU where the command is about one. */
  monitor(command: string, cpu?: number): Promise<string>;
  /** Waits until the console has it; fails the test, with the console's end, if that takes too long. */
  consoleSays(words: RegExp, seconds?: number): Promise<void>;
  down(): Promise<void>;
}

/**
 * Debian packages that tests need in guests: the same in all, so that there is one image, and one snapshot of
 * each size of guest.
 */
export const PACKAGES = ['attr', 'criu', 'numactl', 'procps', 'python3', 'socat', 'tmux'];

/** Boots a guest of this run's release; a few words say what for. */
export async function bootTestGuest(what: string, options: TestGuestOptions = {}): Promise<TestGuest> {
  const run = process.env.OTHERWORLD_TEST_RUN ?? String(process.pid);
  // Guests of both releases run side by side.
  const name = `${testGuestPrefix(run)}${what.replaceAll(/[^A-Za-z0-9]+/g, '-').slice(0, 15)}-${release[0]}`;
  const { memoryMiB = COMMON.memoryMiB, cpus = COMMON.cpus } = options;
  const progress = stderrProgress();
  const machine: GuestOptions = {
    name,
    release,
    packages: [...PACKAGES, ...(options.packages ?? [])],
    memoryMiB,
    cpus,
    crashKernelMiB: options.crashKernelMiB ?? COMMON.crashKernelMiB,
    ...options.furniture,
    forwards: [...(options.forwards ?? [])],
    append: options.append ?? COMMON.append,
    devices: options.devices ?? [],
    // Devices of all kinds can be had, not all of them in a snapshot.
    quick: options.quick ?? options.devices === undefined,
  };
  const boot = isArmed(options) && isCommon(options) ? bootArmedGuest : bootGuest;
  await removedOnFailure(boot(machine, progress));
  const guest = openTestGuest(name);
  try {
    await prepare(guest, options, progress);
  } catch (error) {
    await guest.down();
    throw error;
  }
  return guest;
}

/** What a guest is like if its test does not say; no devices and no furniture. */
const COMMON = {
  memoryMiB: 2048,
  cpus: 2,
  crashKernelMiB: 320,
  append: '',
  quick: true,
  install: true,
  arm: true,
} as const;

const isArmed = ({ install, arm }: TestGuestOptions): boolean => install !== false && arm !== false;

/**
 * Whether the guest is of the machine that most files have: only of that one it pays to keep a guest that is
 * armed, because a run that finds no snapshots makes them for itself. On the older releases it pays only
 * where every file runs on them.
 */
export function isCommon({ forwards: _, configuration: __, ...own }: TestGuestOptions): boolean {
  const common: Readonly<Record<string, unknown>> = COMMON;
  const isOrdinary = Object.entries(own).every(
    ([name, value]) => value === undefined || value === common[name],
  );
  return isOrdinary && (isWhole || release === releases[0]);
}

/** Installs, configures and arms, as far as that has not been done. */
async function prepare(guest: TestGuest, options: TestGuestOptions, progress: Progress): Promise<void> {
  const { configuration, install } = options;
  const isThere = isArmed(options) && isCommon(options);
  if (install !== false && !isThere) {
    progress.step('installing Otherworld');
    await installOtherworld(guest.name);
  }
  if (configuration !== undefined) {
    await guest.sh(
      `mkdir -p /etc/otherworld; cat >/etc/otherworld/otherworld.toml <<'EOF'\n${configuration}EOF`,
    );
  }
  if (isArmed(options) && (!isThere || configuration !== undefined)) {
    progress.step('arming');
    await armGuest(guest.name);
  }
  progress.step(`${guest.name} is ready`);
}

function openTestGuest(name: string): TestGuest {
  const sh = (script: string, timeoutSeconds = 120): Promise<string> => shell(name, script, timeoutSeconds);
  return {
    name,
    exec: (command, options) => execCaptured(name, command, options),
    sh,
    background: async (script) =>
      Number(await sh(`setsid sh -c ${quote(script)} </dev/null >/dev/null 2>&1 & echo $!`)),
    until: (script, seconds) => retry(name, script, seconds),
    untilState: async (pid, letters, seconds = 60) => {
      await retry(name, `grep -q '^State:.[${letters}]' /proc/${pid}/status`, seconds);
    },
    protect: async (pids) => {
      await sh(`otherworld protect --pid ${pids.join(' ')}`, 600);
    },
    kill: async (pids) => {
      if (pids.length === 0) return;
      const all = pids.join(' ');
      await sh(
        `kill -9 ${all} 2>/dev/null; for p in ${all}; do while [ -e /proc/$p ]; do sleep 0.1; done; done`,
      );
    },
    copyIn: (source, destination) => copyFiles(name, source, `${name}:${destination}`),
    copyOut: (source, destination) => copyFiles(name, `${name}:${source}`, destination),
    program: (program) => installProgram(name, program),
    vmcore: (file) => dumpGuest(name, file),
    dumpUntil: (file, find) => dumpUntil(name, file, find),
    panic: (fault = 'sysrq', cpu) => panicAndReport(name, fault, cpu),
    overwrite: (physical, bytes) => overwriteMemory(name, physical, bytes),
    monitor: (command, cpu = 0) => askMonitor(name, command, cpu),
    consoleSays: (words, seconds = 30) => consoleSays(name, words, seconds),
    down: () => removeGuest(name),
  };
}

async function consoleSays(name: string, words: RegExp, seconds: number): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (!words.test(readFileSync(guestPaths(name).consoleLog, 'latin1'))) {
    if (performance.now() > end) {
      throw new Error(`the console of ${name} does not say ${words}; its end:\n${consoleTail(name, 20)}`);
    }
    await sleep(500);
  }
}

async function installProgram(name: string, program: string): Promise<void> {
  const scratch = scratchDirectory();
  const compiled = join(scratch.path, program);
  const source = join(import.meta.dirname, 'programs', `${program}.c`);
  const sdk = join(import.meta.dirname, '../../sdk/c');
  try {
    const options = ['-O1', '-Wall', '-Wextra', '-static', '-pthread', '-I', sdk];
    execFileSync('gcc', [...options, '-o', compiled, source]);
    await copyFiles(name, compiled, `${name}:/usr/local/bin/${program}`);
  } finally {
    scratch.remove();
  }
}

/** As many dumps as a state of some likelihood takes: a test that is about a rare one prepares it. */
const MOST_DUMPS = 30;

async function dumpUntil<T>(name: string, file: string, find: (kernel: Kernel) => T | undefined): Promise<T> {
  for (let i = 0; i < MOST_DUMPS; i++) {
    await dumpGuest(name, file);
    const kernel = openKernel(file);
    try {
      const found = find(kernel);
      if (found !== undefined) return found;
    } finally {
      kernel.close();
    }
  }
  throw new Error(`${name} was not in the state that the test is about in any of ${MOST_DUMPS} dumps`);
}

/** Whether it was only for the moment that a capture refused somebody. */
export function wasComputing({ refused }: CaptureResult): boolean {
  return refused.some(({ reasons }) =>
    reasons.some((reason) => /was computing on|was on a CPU/.test(reason)),
  );
}

async function askMonitor(name: string, command: string, cpu: number): Promise<string> {
  const answer = await withQmp(guestPaths(name).qmp, (qmp) =>
    qmp.execute('human-monitor-command', { 'command-line': command, 'cpu-index': cpu }),
  );
  return String(answer);
}

async function panicAndReport(name: string, fault: Fault, cpu: number | undefined): Promise<IncidentReport> {
  const options = { fault, cpu, waitSeconds: 300, unarmed: false };
  const incident = await panicGuest(name, options, stderrProgress());
  const { stdout } = await execCaptured(name, [
    'cat',
    `/var/lib/otherworld/incidents/${incident}/report.json`,
  ]);
  return reportSchema.parse(JSON.parse(stdout));
}

/** Fails the test, with the report's reasons, if a process does not run again. */
export function assertRestored(report: IncidentReport, pid: number): void {
  const found = report.processes.find((process) => process.pid === pid);
  assert.deepEqual([found?.outcome, ...(found?.reasons ?? [])], ['restored'], `process ${pid}`);
}

/** A directory of the host for a test's files; `remove` takes it away. */
export function scratchDirectory(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'otherworld-test-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}
