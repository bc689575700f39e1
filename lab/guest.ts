import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { cacheDirectory, makeCacheDirectory, processExists } from './cache.ts';
import { LabError, WrongUse } from './error.ts';
import { releases } from './release.ts';

const guestState = z.object({
  name: z.string(),
  release: z.enum(releases),
  kernelRelease: z.string(),
  /** Key of the Debian system that its image is built on; images of different packages share it. */
  systemKey: z.string().default('unknown'),
  packages: z.array(z.string()),
  memoryMiB: z.number(),
  cpus: z.number(),
  accelerator: z.enum(['kvm', 'tcg']),
  qemuVersion: z.string(),
  sshPort: z.number(),
  forwards: z.array(z.object({ host: z.number(), guest: z.number() })),
  startedAt: z.string(),
});

/** What is recorded of a guest when it is started. */
export type GuestState = z.infer<typeof guestState>;

/** A guest's directory and the files in it. */
export interface GuestPaths {
  directory: string;
  state: string;
  disk: string;
  pid: string;
  qmp: string;
  gdb: string;
  /** Socket of the second serial port, a root shell. */
  shell: string;
  /** All that both worlds wrote to the first serial port. */
  consoleLog: string;
  /** Control socket of the shared ssh connection. */
  control: string;
}

/** @throws WrongUse if the name would not do as a directory name. */
export function guestPaths(name: string): GuestPaths {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/.test(name)) {
    throw new WrongUse(`'${name}' cannot be a guest's name: letters, digits, '.', '_' and '-', at most 32`);
  }
  const directory = cacheDirectory('guests', name);
  const at = (file: string): string => join(directory, file);
  return {
    directory,
    state: at('state.json'),
    disk: at('disk.qcow2'),
    pid: at('qemu.pid'),
    qmp: at('qmp'),
    gdb: at('gdb'),
    shell: at('shell'),
    consoleLog: at('console.log'),
    control: at('ssh'),
  };
}

/** Pid of the guest's QEMU while that runs. */
export function guestPid(name: string): number | undefined {
  const { pid: file } = guestPaths(name);
  if (!existsSync(file)) return undefined;
  const pid = Number(readFileSync(file, 'utf8'));
  return pid > 0 && processExists(pid) && commandLine(pid).includes(file) ? pid : undefined;
}

/** A pid may have been used again since: QEMU's arguments name the guest's own pid file. */
function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

/** @throws LabError if there is no guest of this name. */
export function readGuest(name: string): GuestState {
  const { state } = guestPaths(name);
  if (!existsSync(state)) {
    const others = guestNames();
    const hint = others.length > 0 ? `there are: ${others.join(', ')}` : `start one with 'lab up ${name}'`;
    throw new LabError(`no guest is called ${name}; ${hint}`);
  }
  const parsed = guestState.safeParse(JSON.parse(readFileSync(state, 'utf8')));
  if (!parsed.success)
    throw new LabError(`${state} is not of this version's making; end its QEMU and remove it`);
  return parsed.data;
}

/** @throws LabError if the guest is unknown or its QEMU does not run. */
export function readRunningGuest(name: string): GuestState {
  const guest = readGuest(name);
  if (guestPid(name) === undefined) {
    throw new LabError(
      `guest ${name} is not running; 'lab log ${name}' shows its console, 'lab up ${name}' starts anew`,
    );
  }
  return guest;
}

/** Names of all guests that have a directory, running or not. */
export function guestNames(): string[] {
  const directory = makeCacheDirectory('guests');
  return readdirSync(directory).filter((name) => existsSync(join(directory, name, 'state.json')));
}

/** Makes an empty directory for a new guest. */
export function makeGuestDirectory(name: string): GuestPaths {
  const paths = guestPaths(name);
  rmSync(paths.directory, { recursive: true, force: true });
  mkdirSync(paths.directory, { recursive: true });
  return paths;
}

/** Records a guest's state. */
export function writeGuest(state: GuestState): void {
  writeFileSync(guestPaths(state.name).state, `${JSON.stringify(state, null, 2)}\n`);
}
