// A guest with processes of several kinds whose memory was dumped, captured from copies of the dump that are
// damaged.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { RecordingMemory } from '../../lab/fixture/recording-memory.ts';
import { captureProcesses } from '../../src/capture/index.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import type { CaptureResult } from '../../src/model/group.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFile, type VmcoreFile } from '../../src/vmcore/mapping.ts';
import { kernelFrom, openSource } from '../../src/vmcore/open.ts';
import { bootTestGuest, type TestGuest } from './harness.ts';

const programs = join(import.meta.dirname, 'programs');

/** Eight bytes of zeros. */
export const ZERO: Buffer = Buffer.alloc(8);

/** Bytes to put at a kernel address. */
export type Patch = readonly [address: bigint, bytes: Uint8Array];

/** Pids of a capture, the processes of a group joined by `+`. */
export function groupsOf({ groups }: CaptureResult): string[] {
  return groups.map(({ processes }) => processes.map(({ pid }) => pid).join('+'));
}

export function reasonsOf({ refused }: CaptureResult, pid: number): string {
  return refused.find((refusal) => refusal.pid === pid)?.reasons.join('; ') ?? '';
}

/** What was not believed of a process, as `WHAT: USED`. */
export function repairsOf({ groups }: CaptureResult, pid: number): string[] {
  return groups
    .flatMap(({ processes }) => processes)
    .filter((process) => process.pid === pid)
    .flatMap(({ findings }) => findings.repairs.map(({ what, used }) => `${what}: ${used}`));
}

/**
 * A program of many parts, a pipeline, a sleeper, a pair that shares memory, and a pair on a pipe of whom
 * only the first is protected.
 */
interface Pids {
  readonly state: number;
  readonly pipeline: number;
  readonly sleeper: number;
  readonly watcher: number;
  readonly reader: number;
}

/** What the guest had, whole and with damage. */
export class DamageScene {
  readonly pids: Pids;
  /** The other end of the reader's pipe, which is not protected. */
  readonly writer: number;
  readonly source: ReturnType<typeof openSource>;
  readonly kernel: Kernel;
  /** What is captured from the whole dump. */
  readonly whole: CaptureResult;
  /** Frames that a capture reads. */
  readonly frames: readonly number[];
  readonly #file: VmcoreFile;

  constructor(file: VmcoreFile, pids: Pids, writer: number) {
    this.pids = pids;
    this.writer = writer;
    this.source = openSource(file);
    this.#file = file;
    const memory = new RecordingMemory(this.source.physical);
    this.kernel = this.open(memory);
    this.capture(this.kernel);
    memory.touched.clear();
    this.whole = this.capture(this.kernel);
    this.frames = [...memory.touched];
  }

  open(memory: RecordingMemory): Kernel {
    return kernelFrom(this.#file, { ...this.source, physical: memory });
  }

  capture(of: Kernel): CaptureResult {
    return captureProcesses(of, { roots: Object.values(this.pids), includeDescendants: true });
  }

  withDamage(...patches: readonly Patch[]): Kernel {
    const memory = new RecordingMemory(this.source.physical);
    for (const [address, bytes] of patches) memory.replace(this.kernel.memory.translate(address), bytes);
    return this.open(memory);
  }

  damaged(...patches: readonly Patch[]): CaptureResult {
    return this.capture(this.withDamage(...patches));
  }

  /** The address of a process's task_struct. */
  task(pid: number): bigint {
    return findTaskByPid(this.kernel, pid) ?? 0n;
  }

  /** The offset of a member of a structure. */
  member(structure: string, path: string): bigint {
    return BigInt(this.kernel.layouts.member(structure, path)?.offsetBytes ?? 0);
  }
}

async function startProcesses(guest: TestGuest): Promise<{ pids: Pids; writer: number }> {
  await guest.program('state');
  await guest.copyIn(join(programs, 'sequence.py'), '/root/sequence.py');
  await guest.copyIn(join(programs, 'watcher.py'), '/root/watcher.py');
  const pids = {
    state: await guest.background('exec state /tmp/state'),
    pipeline: await guest.background(
      'python3 /root/sequence.py write | python3 /root/sequence.py check /tmp/sequence; true',
    ),
    sleeper: await guest.background('exec sleep 100000'),
    watcher: await guest.background('exec python3 /root/watcher.py'),
    reader: await guest.background('mkfifo /tmp/fifo; exec sleep 100000 < /tmp/fifo'),
  };
  const writer = await guest.background('exec sleep 100000 > /tmp/fifo');
  await guest.sh('mkdir /dev/shm/kept; cd /dev/shm/kept; for i in 1 2 3; do echo $i >$i; done');
  await guest.until(
    'grep -q ok /tmp/state && [ -s /tmp/sequence ] && [ -S /tmp/watcher ] && [ $(pgrep -cx sleep) -ge 3 ]',
    60,
  );
  return { pids, writer };
}

/**
 * Boots a guest, starts the processes, and dumps its memory in a moment in which nobody computes on a CPU:
 * that would be refused, however whole the kernel is.
 * @param directory where the dump is written
 * @returns the guest, which runs on, too
 */
export async function bootDamageScene(
  name: string,
  directory: string,
): Promise<{ guest: TestGuest; scene: DamageScene }> {
  const guest = await bootTestGuest(name, { install: false });
  const { pids, writer } = await startProcesses(guest);
  const dump = join(directory, 'dump');
  for (let attempt = 1; attempt <= 5; attempt++) {
    await guest.vmcore(dump);
    const file = openFile(dump);
    const scene = new DamageScene(file, pids, writer);
    const isComputing = scene.whole.refused.some(({ reasons }) =>
      /was computing on|was on a CPU/.test(reasons.join()),
    );
    if (!isComputing) return { guest, scene };
    file.close();
  }
  assert.fail('in five dumps of the guest somebody computed on a CPU');
}
