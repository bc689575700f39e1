import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type DescMessage, fromBinary, type MessageShape, toJson } from '@bufbuild/protobuf';
import * as z from 'zod';
import { CoreEntrySchema } from '../../src/criu/images/proto/gen/core_pb.ts';
import { type MmEntry, MmEntrySchema } from '../../src/criu/images/proto/gen/mm_pb.ts';
import { PagemapEntrySchema, PagemapHeadSchema } from '../../src/criu/images/proto/gen/pagemap_pb.ts';
import { PstreeEntrySchema } from '../../src/criu/images/proto/gen/pstree_pb.ts';
import { MAP_SHARED, PROT_EXEC } from '../../src/system/abi.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';

type Entry = Record<string, unknown>;
const record = z.record(z.string(), z.unknown());

/** The protobuf messages of an image. */
function entriesOf(path: string): Buffer[] {
  const data = readFileSync(path);
  const found: Buffer[] = [];
  for (let start = 8; start < data.length; ) {
    const size = data.readUInt32LE(start);
    found.push(data.subarray(start + 4, start + 4 + size));
    start += 4 + size;
  }
  return found;
}

function decode<Desc extends DescMessage>(schema: Desc, path: string): MessageShape<Desc> {
  const [first] = entriesOf(path);
  assert.ok(first !== undefined, path);
  return fromBinary(schema, first);
}

/** Follows names into decoded entries. */
function at(entry: Entry, ...path: string[]): Entry {
  return path.reduce((value, name) => record.parse(value[name]), entry);
}

/** Leaves out members that the two may differ in. */
function without(entry: Entry, ...names: string[]): Entry {
  return Object.fromEntries(Object.entries(entry).filter(([name]) => !names.includes(name)));
}

/** Registers of a stopped thread that depend on what is decided about its system call. */
const syscallRegisters = ['ax', 'ip', 'orig_ax', 'di', 'dx', 'r10', 'cx'];

/**
 * Floating-point and vector registers, without components that CRIU leaves out because they are not in use
 * (MPX).
 */
function vectors(entry: Entry): Entry {
  const fpregs = at(entry, 'thread_info', 'fpregs');
  return { ...fpregs, xsave: without(at(fpregs, 'xsave'), 'bndreg_state', 'bndcsr_state') };
}

function compareThread(tid: number, theirs: string, ours: string): void {
  const [their, our] = [theirs, ours].map((directory) => {
    const message = decode(CoreEntrySchema, join(directory, `core-${tid}.img`));
    return record.parse(toJson(CoreEntrySchema, message, { useProtoFieldName: true }));
  });
  assert.ok(their !== undefined && our !== undefined);
  const same = (what: string, select: (entry: Entry) => Entry) =>
    assert.deepEqual(select(our), select(their), `thread ${tid}: ${what}`);
  same('TLS and clear_child_tid', (entry) => without(at(entry, 'thread_info'), 'gpregs', 'fpregs'));
  same('vector registers', vectors);
  same('general registers', (entry) => without(at(entry, 'thread_info', 'gpregs'), ...syscallRegisters));
  same('thread', (entry) =>
    without(at(entry, 'thread_core'), 'blk_sigset', 'cg_set', 'creds', 'seccomp_mode', 'pdeath_sig'),
  );
  // CRIU 3 knows neither of the two.
  same('credentials', (entry) => without(at(entry, 'thread_core', 'creds'), 'no_new_privs', 'cap_amb'));
  if (their.tc === undefined) return;
  const differing = ['timers', 'flags', 'cg_set', 'stop_signo', 'signals_s', 'membarrier_registration_mask'];
  same('process', (entry) => without(at(entry, 'tc'), ...differing));
}

const MAP_LOCKED = 0x2000;
const VVAR = 1 << 12;
/** CRIU up to 4.1 does not look for this advice, but takes it from the images. */
const MADV_WIPEONFORK = 1n << 18n;

/** Areas with what decides about them; for shared memory CRIU has two ways to say the same. */
function areas(mm: MmEntry): string[] {
  return mm.vmas.map(({ start, end, prot, flags, status, madv }) => {
    const range = `${start.toString(16)}-${end.toString(16)} ${prot}`;
    const isShared = (flags & MAP_SHARED) !== 0;
    const advice = (status & VVAR) !== 0 ? 0n : madv & ~MADV_WIPEONFORK;
    const others = (flags & ~MAP_LOCKED).toString(16);
    return isShared ? `${range} shared` : `${range} ${others} ${status.toString(16)} ${advice}`;
  });
}

/** Where areas are locked as a whole. CRIU takes those for such that are locked page by page. */
function locked(mm: MmEntry): bigint[] {
  return mm.vmas.filter(({ flags }) => (flags & MAP_LOCKED) !== 0).map(({ start }) => start);
}

function compareMm(their: MmEntry, our: MmEntry): void {
  const plain = (mm: MmEntry) => ({ ...mm, vmas: [], exeFileId: 0, mmSavedAuxv: [], $unknown: undefined });
  assert.deepEqual(plain(our), plain(their));
  assert.deepEqual(areas(our), areas(their));
  const [ours, theirs] = [locked(our), locked(their)];
  assert.ok(ours.length > 0 && ours.every((start) => theirs.includes(start)));
  assert.equal(theirs.length - ours.length, 1, 'one area is locked page by page');
}

/** Stored pages by their address. */
function pagesOf(directory: string, pid: number): Map<number, Buffer> {
  const [head, ...entries] = entriesOf(join(directory, `pagemap-${pid}.img`));
  assert.ok(head !== undefined);
  const store = readFileSync(join(directory, `pages-${fromBinary(PagemapHeadSchema, head).pagesId}.img`));
  const pages = new Map<number, Buffer>();
  for (const entry of entries) {
    const { vaddr, nrPages } = fromBinary(PagemapEntrySchema, entry);
    for (let i = 0; i < nrPages; i++) {
      const from = pages.size * PAGE_SIZE;
      pages.set(Number(vaddr) + i * PAGE_SIZE, store.subarray(from, from + PAGE_SIZE));
    }
  }
  return pages;
}

function comparePages(pid: number, theirs: string, ours: string, mm: MmEntry): void {
  const [their, our] = [pagesOf(theirs, pid), pagesOf(ours, pid)];
  const common = [...their.keys()].filter((page) => our.has(page));
  assert.ok(common.length > 2000, `${common.length} pages in common`);
  // A timeout that is made shorter is written below the stack of each thread that sleeps.
  const differing = common.filter((page) => !their.get(page)?.equals(our.get(page) ?? Buffer.alloc(0)));
  assert.ok(differing.length <= 3, `pages that differ: ${differing.map((page) => page.toString(16))}`);
  const alone = (a: Map<number, Buffer>, b: Map<number, Buffer>) =>
    [...a].filter(([page, data]) => !b.has(page) && data.some((byte) => byte !== 0)).map(([page]) => page);
  assert.deepEqual(alone(our, their), []);
  // CRIU runs its own code in the first executable page, which it puts back but which is the process's own
  // from then on.
  const code = Number(mm.vmas.find(({ prot }) => (prot & PROT_EXEC) !== 0)?.start);
  assert.deepEqual(
    alone(their, our).filter((page) => page !== code),
    [],
  );
}

/** Asserts that two directories of images, CRIU's own and ours, say the same of a stopped process. */
export function compareImages(pid: number, theirs: string, ours: string): void {
  const tree = entriesOf(join(theirs, 'pstree.img')).map((entry) => fromBinary(PstreeEntrySchema, entry));
  const threads = tree.find((entry) => entry.pid === pid)?.threads ?? [];
  assert.ok(threads.length > 0);
  for (const tid of threads) compareThread(tid, theirs, ours);
  const [their, our] = [theirs, ours].map((directory) =>
    decode(MmEntrySchema, join(directory, `mm-${pid}.img`)),
  );
  assert.ok(their !== undefined && our !== undefined);
  compareMm(their, our);
  comparePages(pid, theirs, ours, their);
}
