import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { checkHeader, type OpenArea, openRegular } from '../../../src/crash-world/swap/open-area.ts';
import { SwapStore } from '../../../src/crash-world/swap/swap-store.ts';
import type { SwapExtent } from '../../../src/linux/readers/swap-areas.ts';
import { swapAddress } from '../../../src/linux/readers/swap-entries.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import type { PhysicalMemory, PhysicalRange } from '../../../src/vmcore/physical.ts';
import { contentOf } from '../../../src/vmcore/stored-pages.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-swap-'));
after(() => rmSync(directory, { recursive: true, force: true }));

/** In the place of an area there is none of this number: pages of zeros. */
const ZEROS = 31;

/** A device of 64 pages, each filled with its number. */
function device(name: string): string {
  const path = join(directory, name);
  const bytes = Buffer.alloc(64 * PAGE_SIZE);
  for (let page = 0; page < 64; page++) bytes.fill(page, page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  writeFileSync(path, bytes);
  return path;
}

const EXTENTS: readonly SwapExtent[] = [
  { slot: 0, slots: 4, block: 10 },
  { slot: 4, slots: 8, block: 40 },
];

function openArea(name: string): OpenArea {
  return { name, slots: 12, extents: EXTENTS, fd: openSync(device(name), 'r') };
}

/** First byte of each page. */
function pagesOf(bytes: Buffer): number[] {
  return Array.from({ length: bytes.length / PAGE_SIZE }, (_, page) => bytes[page * PAGE_SIZE] ?? -1);
}

/** What lands in a file. */
function written(write: (fd: number) => void): Buffer {
  const path = join(directory, 'image');
  const fd = openSync(path, 'w');
  write(fd);
  closeSync(fd);
  return readFileSync(path);
}

suite('swap areas as a store of pages', () => {
  const store = new SwapStore(
    new Map<number, OpenArea | string>([
      [2, openArea('vda2')],
      [3, 'the swap area zram0 is not read'],
    ]),
  );
  after(() => store.close());

  test('are read where their extents have them', () => {
    const bytes = Buffer.alloc(4 * PAGE_SIZE);
    store.read(swapAddress(2, 2), bytes);
    assert.deepEqual(pagesOf(bytes), [12, 13, 40, 41]);
  });

  test('are read from the middle of a page', () => {
    const bytes = Buffer.alloc(2);
    store.read(swapAddress(2, 4) - 1, bytes);
    assert.deepEqual([...bytes], [13, 40]);
  });

  test('go to a file as they lie, with pages of zeros', () => {
    const image = written((fd) => {
      store.write(fd, swapAddress(2, 2), 4 * PAGE_SIZE);
      store.write(fd, swapAddress(ZEROS, 9), 20 * PAGE_SIZE);
      store.write(fd, swapAddress(2, 11), PAGE_SIZE);
    });
    assert.deepEqual(pagesOf(image), [12, 13, 40, 41, ...new Array<number>(20).fill(0), 47]);
  });

  test('go to a file among memory, in the order of the runs', () => {
    const memory = {
      writeRuns: (fd: number, runs: readonly PhysicalRange[]) => {
        for (const { physical, length } of runs) writeSync(fd, Buffer.alloc(length, physical / PAGE_SIZE));
        return runs.reduce((sum, { length }) => sum + length, 0);
      },
    };
    const content = contentOf({ physical: memory as unknown as PhysicalMemory, stored: store });
    const at = (physical: number, pages: number): PhysicalRange => ({ physical, length: pages * PAGE_SIZE });
    const runs = [at(PAGE_SIZE, 1), at(3 * PAGE_SIZE, 1), at(swapAddress(2, 1), 2), at(5 * PAGE_SIZE, 1)];
    const image = written((fd) => assert.equal(content.writeRuns(fd, runs), 5 * PAGE_SIZE));
    assert.deepEqual(pagesOf(image), [1, 3, 11, 12, 5]);
  });

  test('have no more slots than they had, and none of an area that is not read', () => {
    assert.equal(store.has(swapAddress(2, 11), PAGE_SIZE), true);
    assert.equal(store.has(swapAddress(2, 12), PAGE_SIZE), false);
    assert.equal(store.has(swapAddress(3, 1), PAGE_SIZE), false);
    assert.equal(store.problem(swapAddress(3, 1)), 'the swap area zram0 is not read');
    assert.equal(store.problem(swapAddress(4, 1)), 'swap area 4 is not there');
    assert.throws(() => store.read(swapAddress(3, 1), Buffer.alloc(1)), /zram0 is not read/);
  });

  test('whose device ends before it should are an error that names them', () => {
    const short = { ...openArea('short'), extents: [{ slot: 0, slots: 12, block: 60 }] };
    const one = new SwapStore(new Map([[0, short]]));
    assert.throws(
      () => one.read(swapAddress(0, 3), Buffer.alloc(2 * PAGE_SIZE)),
      /the swap area short cannot be read/,
    );
    assert.throws(
      () => written((fd) => one.write(fd, swapAddress(0, 3), 2 * PAGE_SIZE)),
      /swap area short .* ends there/,
    );
    one.close();
  });

  test('that cannot be read are an error that names them, not the file that is written', () => {
    const fd = openSync(directory, 'r');
    const broken = new SwapStore(new Map([[0, { ...openArea('broken'), fd }]]));
    assert.throws(
      () => written((to) => broken.write(to, swapAddress(0, 1), PAGE_SIZE)),
      /the swap area broken .*EISDIR/,
    );
    closeSync(fd);
  });
});

suite('the header of a swap area', () => {
  const header = (change: (page: Buffer) => void): number => {
    const path = device('header');
    const bytes = readFileSync(path);
    const page = bytes.subarray(10 * PAGE_SIZE, 11 * PAGE_SIZE);
    page.write('SWAPSPACE2', PAGE_SIZE - 10, 'latin1');
    page.writeUInt32LE(1, 1024);
    page.writeUInt32LE(11, 1028);
    change(page);
    writeFileSync(path, bytes);
    return openSync(path, 'r');
  };
  const problemOf = (change: (page: Buffer) => void, isFile = false): string | undefined => {
    const fd = header(change);
    const inode = { path: '/swap', inode: 1, generation: 1, sizeBytes: 1 };
    const file = isFile ? { ...inode, fileSystem: { magic: 0, uuid: undefined, device: 0 } } : undefined;
    try {
      checkHeader({ name: 'vda2', slots: 12, extents: EXTENTS, file }, fd);
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      closeSync(fd);
    }
  };

  test('is looked for where the first slot lies, and has as many slots as were in use', () => {
    assert.equal(
      problemOf(() => undefined),
      undefined,
    );
    assert.match(
      problemOf((page) => page.writeUInt32LE(12, 1028)) ?? '',
      /has 13 slots by its header, and had 12/,
    );
  });

  test('of a file may have more: what does not lie in whole pages is left out', () => {
    assert.equal(
      problemOf((page) => page.writeUInt32LE(12, 1028), true),
      undefined,
    );
    assert.match(problemOf((page) => page.writeUInt32LE(10, 1028), true) ?? '', /has 11 slots by its header/);
  });

  test('of another kind, of a hibernated system, or of another version is refused', () => {
    assert.match(problemOf((page) => page.fill(0)) ?? '', /has no header of a swap area/);
    assert.match(
      problemOf((page) => page.write('S1SUSPEND\0', PAGE_SIZE - 10, 'latin1')) ?? '',
      /no header of a swap area \("S1SUSPEND/,
    );
    assert.match(problemOf((page) => page.writeUInt32LE(2, 1024)) ?? '', /header of version 2/);
  });
});

suite('a swap file, by the path of then', () => {
  test('is opened if it is a regular file', () => {
    const fd = openRegular(device('regular'));
    assert.equal(fstatSync(fd).size, 64 * PAGE_SIZE);
    closeSync(fd);
  });

  test('is not opened if it is anything else: that could act', () => {
    assert.throws(() => openRegular('/dev/null'), /the swap file \/dev\/null is no regular file now/);
    // To open a pipe that nobody writes to would wait for ever.
    const pipe = join(directory, 'pipe');
    assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
    assert.throws(() => openRegular(pipe), /is no regular file now/);
    const link = join(directory, 'link');
    symlinkSync(device('target'), link);
    assert.throws(() => openRegular(link), /is no regular file now/);
  });
});
