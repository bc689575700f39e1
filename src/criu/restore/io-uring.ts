import { closeSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { MAP_SHARED, O_CLOEXEC } from '../../system/abi.ts';
import { takeDescriptor } from '../../system/descriptors.ts';
import { errnoText } from '../../system/errno.ts';
import { ringFlags, SYS_io_uring_enter, SYS_io_uring_setup, submitRequests } from '../../system/io-uring.ts';
import { checked } from '../../system/libc.ts';
import { limitOf, RLIMIT_AS, RLIMIT_NOFILE, setLimit } from '../../system/process-settings.ts';
import { messageOf } from '../../system/thrown.ts';
import type { PlannedRing } from '../images/plan/restore-plan.ts';
import { countRequests, type Submit } from './count-requests.ts';
import { type Freezer, whileHeld } from './held-process.ts';
import { type GiveLimit, whileUnlimited } from './limit.ts';
import { openImage } from './open-image.ts';
import { placeAreas } from './placed-areas.ts';
import { RingMemory } from './ring-memory.ts';
import type { Tracee } from './tracee.ts';

const SYS = { mmap: 9, close: 3, madvise: 28, fcntl: 72, dup3: 292 } as const;
const F_SETFD = 2;
const PROT_READ_WRITE = 3;
/** struct io_uring_params: its size, and where it has what. */
const PARAMS = { bytes: 120, cqEntries: 4, flags: 8, sqOffsets: 40, cqOffsets: 80 } as const;
/** Offsets in the order in which they are told (struct io_sqring_offsets, struct io_cqring_offsets). */
const SQ_OFFSETS = ['sqHead', 'sqTail', 'sqMask', 'sqEntries', 'sqFlags', 'sqDropped', 'sqArray'] as const;
const CQ_OFFSETS = ['cqHead', 'cqTail', 'cqMask', 'cqEntries', 'cqOverflow', 'cqes', 'cqFlags'] as const;

type Held = Pick<Tracee, 'pid' | 'call' | 'withBytes'>;

function must(what: string, result: number): number {
  if (result < 0) throw new Error(`${what} fails (${errnoText(-result)})`);
  return result;
}

/** Throws an Error if a kernel has something elsewhere in the rings: the program knows where it was. */
function checkOffsets({ offsets }: PlannedRing, params: Buffer): void {
  const told = (names: readonly (keyof PlannedRing['offsets'])[], at: number): boolean =>
    names.every((name, i) => params.readUInt32LE(at + 4 * i) === offsets[name]);
  if (!told(SQ_OFFSETS, PARAMS.sqOffsets) || !told(CQ_OFFSETS, PARAMS.cqOffsets))
    throw new Error('this kernel has another layout of rings');
}

/** The number of a new ring's descriptor. */
function setUp(tracee: Held, ring: PlannedRing): number {
  const params = Buffer.alloc(PARAMS.bytes);
  params.writeUInt32LE(ring.cqEntries, PARAMS.cqEntries);
  // The program has said how many completions fit, or is taken as having said it. To be attached changes
  // nothing for a ring without a thread that polls it; the other ring may be gone.
  params.writeUInt32LE((ring.setup & ~ringFlags.attachWq) | ringFlags.cqSize, PARAMS.flags);
  return tracee.withBytes(params, (address, read) => {
    const issuer = ring.issuer ?? tracee.pid;
    const fd = must('io_uring_setup', tracee.call(issuer, SYS_io_uring_setup, ring.sqEntries, address));
    checkOffsets(ring, read());
    return fd;
  });
}

/** Makes a ring at the numbers that its stand-ins have. */
function makeRing(tracee: Held, ring: PlannedRing): void {
  const { pid } = tracee;
  for (const { fd } of ring.descriptors) must('close', tracee.call(pid, SYS.close, fd));
  const made = setUp(tracee, ring);
  for (const { fd, closeOnExec } of ring.descriptors) {
    if (fd === made) must('fcntl', tracee.call(pid, SYS.fcntl, fd, F_SETFD, closeOnExec ? 1 : 0));
    else must('dup3', tracee.call(pid, SYS.dup3, made, fd, closeOnExec ? O_CLOEXEC : 0));
  }
  if (!ring.descriptors.some(({ fd }) => fd === made)) must('close', tracee.call(pid, SYS.close, made));
}

function mapRings(tracee: Held, rings: readonly PlannedRing[]): void {
  const { pid } = tracee;
  const areas = rings.flatMap((ring) => ring.areas.map((area) => ({ ...area, fd: firstOf(ring) })));
  placeAreas(tracee, areas, ({ bytes, fd, offset }) =>
    tracee.call(pid, SYS.mmap, 0, bytes, PROT_READ_WRITE, MAP_SHARED, fd, offset),
  );
  for (const { start, bytes, advice } of areas)
    for (const one of advice) must('madvise', tracee.call(pid, SYS.madvise, start, bytes, one));
}

function firstOf({ descriptors: [first] }: PlannedRing): number {
  if (first === undefined) throw new Error('it has no descriptor');
  return first.fd;
}

/** How requests are given to the kernel: by the thread that alone may, or through the open file. */
function withSubmit(tracee: Held, ring: PlannedRing, use: (submit: Submit) => void): void {
  const [fd, { issuer }] = [firstOf(ring), ring];
  if (issuer !== undefined) {
    use((count) => tracee.call(issuer, SYS_io_uring_enter, fd, count, 0, 0, 0, 0));
    return;
  }
  const file = checked('pidfd_getfd', takeDescriptor(ring.pid, fd));
  try {
    use((count) => submitRequests(file, count));
  } finally {
    closeSync(file);
  }
}

function contentOf(directory: string, { content, ringsBytes, entriesBytes }: PlannedRing): Buffer {
  const bytes = Buffer.alloc(ringsBytes + entriesBytes);
  const image = openImage(join(directory, content));
  try {
    const length = readSync(image, bytes, 0, bytes.length, 0);
    if (length !== bytes.length) throw new Error(`${content} has ${length} of ${bytes.length} bytes`);
  } finally {
    closeSync(image);
  }
  return bytes;
}

function fillRing(directory: string, tracee: Held, ring: PlannedRing): void {
  const memory = new RingMemory(ring);
  try {
    withSubmit(tracee, ring, (submit) => countRequests(ring, memory, submit));
    const content = contentOf(directory, ring);
    memory.setRings(content.subarray(0, ring.ringsBytes));
    memory.setEntries(content.subarray(ring.ringsBytes));
  } finally {
    memory.close();
  }
}

/** Does a step while a process may have the descriptors: it may have lowered its limit since. */
function whileNumbered(pid: number, rings: readonly PlannedRing[], give: GiveLimit, step: () => void): void {
  const { soft } = limitOf(pid, RLIMIT_NOFILE);
  if (rings.every(({ descriptors }) => descriptors.every(({ fd }) => BigInt(fd) < soft))) step();
  else {
    const most = BigInt(readFileSync('/proc/sys/fs/nr_open', 'latin1').trim());
    whileUnlimited(pid, RLIMIT_NOFILE, give, step, most);
  }
}

/**
 * Makes the rings of a process that is held where they were: descriptors, areas, what the kernel has counted,
 * and what is in them. Throws an Error if one cannot be.
 *
 * @param rings by rising first descriptors
 */
export function makeRings(
  directory: string,
  tracee: Held,
  rings: readonly PlannedRing[],
  give: GiveLimit = setLimit,
): void {
  whileNumbered(tracee.pid, rings, give, () => {
    for (const ring of rings) makeRing(tracee, ring);
  });
  whileUnlimited(tracee.pid, RLIMIT_AS, give, () => mapRings(tracee, rings));
  for (const ring of rings) fillRing(directory, tracee, ring);
}

/**
 * Has frozen processes make their io_urings again, of which CRIU does not know. Throws an Error if one
 * cannot: its program would wait for completions that never come.
 *
 * @param directory of the images
 * @param freezer in which the processes are when this is called and when it is done
 */
export async function restoreRings(
  directory: string,
  plan: readonly PlannedRing[],
  freezer: Freezer,
): Promise<void> {
  for (const [pid, rings] of Map.groupBy(plan, (ring) => ring.pid)) {
    try {
      whileHeld(pid, freezer, (tracee) => makeRings(directory, tracee, rings));
      await freezer.frozen();
    } catch (error) {
      throw new Error(`the io_uring of process ${pid} cannot be made again: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }
}
