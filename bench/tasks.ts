import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execCaptured } from '../lab/channel.ts';
import { LabError } from '../lab/error.ts';
import { strike } from '../lab/fault.ts';
import { repositoryRoot } from '../lab/node-tree.ts';
import type { Progress } from '../lab/progress.ts';
import { dumpGuest } from '../lab/vmcore.ts';
import { markdownTable } from './document.ts';
import { withGuest, withScratch } from './guest.ts';
import { type Peers, peerCommand, preparePeers } from './peers.ts';
import { type Contender, median, race, spread } from './timing.ts';

const GUEST_MIB = 2048;

/**
 * Listing all user processes of a dead kernel with their memory maps: Otherworld against drgn and crash,
 * whole commands, in turn. What each prints is compared, so that nobody is fast by doing less.
 *
 * @returns Markdown
 * @throws LabError if the lists differ
 */
export async function benchTasks(quick: boolean, progress: Progress): Promise<string> {
  const processes = quick ? 60 : 300;
  const rounds = quick ? 2 : 5;
  return withScratch((GUEST_MIB + 64) * 2 ** 20, async (directory) => {
    const dump = join(directory, 'vmcore');
    const guest = { memoryMiB: GUEST_MIB, arm: false };
    const kernel = await withGuest('tasks', guest, progress, async (name, { kernelRelease }) => {
      progress.step(`starting ${processes} programs`);
      await startProcesses(name, processes);
      await dumpDead(name, dump);
      return kernelRelease;
    });
    const peers = preparePeers(kernel);
    progress.step(`listing processes and maps, ${rounds} rounds and one to warm up`);
    const timings = await race(contenders(directory, dump, peers), rounds);
    const [entering, ...lists] = timings;
    const same = compareLists(lists);
    const base = median(lists[0]!.seconds);
    const rows = lists.map(({ name, seconds }) => [
      name,
      ...spread(seconds).map((value) => value.toFixed(2)),
      (median(seconds) / base).toFixed(2),
    ]);
    return [
      `A guest of ${GUEST_MIB / 1024} GiB (Linux ${kernel}) that died with ${processes} programs of six kinds running; whole commands in turn, ${rounds}`,
      `rounds after one that warms up. All three list the same ${same.processes} processes with the same ${same.areas} memory areas (compared line by line).`,
      `${peers.versions} are Debian 13's, with the kernel's debug package; Otherworld needs none. The peers run in a chroot,`,
      `which is ${median(entering!.seconds).toFixed(2)} s of their time.`,
      '',
      markdownTable(['command', 'median s', 'min s', 'max s', 'ratio'], rows),
    ].join('\n');
  });
}

async function startProcesses(guest: string, count: number): Promise<void> {
  const script = readFileSync(join(import.meta.dirname, 'processes.sh'));
  const { status, stderr } = await execCaptured(guest, ['sh', '-s', String(count)], {
    input: script,
    timeoutSeconds: 200,
  });
  if (status !== 0) throw new LabError(`starting ${count} programs ended with ${status}: ${stderr.trim()}`);
}

/** Kills the guest's kernel, which is not armed, and writes its memory to a file once it has stopped. */
export async function dumpDead(guest: string, file: string): Promise<void> {
  await strike(guest, 'sysrq');
  await sleep(5000);
  await dumpGuest(guest, file);
}

/** The first is nothing but entering the chroot. */
function contenders(directory: string, dump: string, peers: Peers): Contender[] {
  copyFileSync(join(import.meta.dirname, 'tasks-drgn.py'), join(directory, 'tasks.py'));
  writeFileSync(join(directory, 'tasks.crash'), 'foreach gleader vm\nquit\n');
  const drgn = [
    'drgn',
    '-q',
    '-c',
    '/mnt/vmcore',
    '--no-default-symbols',
    '-s',
    peers.vmlinux,
    '/mnt/tasks.py',
  ];
  const crash = ['crash', '-s', '-i', '/mnt/tasks.crash', peers.vmlinux, '/mnt/vmcore'];
  return [
    { name: 'chroot', command: peerCommand(peers, directory, ['true']) },
    {
      name: '`otherworld inspect FILE maps`',
      command: [join(repositoryRoot, 'otherworld'), 'inspect', dump, 'maps'],
    },
    { name: 'drgn', command: peerCommand(peers, directory, drgn) },
    { name: 'crash', command: peerCommand(peers, directory, crash) },
  ];
}

interface Counts {
  readonly processes: number;
  readonly areas: number;
}

/**
 * Brings each output to the same form, `PID COMM` lines each followed by its areas as `START-END FILE`, and
 * compares. Without files with crash, which repeats the mount point's path for files of other mounts.
 */
function compareLists(lists: readonly { name: string; output: string }[]): Counts {
  const [otherworld, drgn, crash] = lists.map(({ output }) => canonicalLines(output));
  const withoutFiles = (lines: readonly string[]): string[] => lines.map((line) => line.replace(/ \/.*/, ''));
  requireSame(otherworld!, drgn!, 'drgn');
  requireSame(withoutFiles(otherworld!), withoutFiles(crash!), 'crash');
  const areas = otherworld!.filter((line) => line.startsWith('  ')).length;
  return { processes: otherworld!.length - areas, areas };
}

function requireSame(ours: readonly string[], theirs: readonly string[], name: string): void {
  const length = Math.max(ours.length, theirs.length);
  for (let at = 0; at < length; at++) {
    if (ours[at] === theirs[at]) continue;
    throw new LabError(
      `the lists differ at line ${at}: otherworld has "${ours[at]}", ${name} "${theirs[at]}"`,
    );
  }
}

/**
 * Of Otherworld's lines (those of /proc/PID/maps), tasks-drgn.py's (address, flags, file), or crash's (VMA,
 * start, end, flags, file).
 */
const AREA =
  /^(?:[0-9a-f]{16} +)?0*(?<start>[0-9a-f]{1,12})[- ] *0*(?<end>[0-9a-f]{1,12}) +(?:[r-][w-][x-][ps] \S+ \S+ \d+|[0-9a-f]+) *(?<file>\/.*)?/;
const PROCESS = /^(?:(?<pid>\d+) (?<comm>.+)|PID: (?<crashPid>\d+) .*COMMAND: "(?<crashComm>.*)")$/;

function canonicalLines(output: string): string[] {
  return output.split('\n').flatMap((line) => {
    const { start, end, file = '' } = AREA.exec(line)?.groups ?? {};
    if (start !== undefined) return [`  ${start}-${end} ${file.replace(/ \(deleted\)$/, '')}`.trimEnd()];
    const { pid, comm, crashPid, crashComm } = PROCESS.exec(line)?.groups ?? {};
    return pid === undefined && crashPid === undefined ? [] : [`${pid ?? crashPid} ${comm ?? crashComm}`];
  });
}
