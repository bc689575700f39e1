import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { imagesSize, type PageSource, writeImages } from '../../../src/criu/images/index.ts';
import type { IoUring } from '../../../src/model/io-uring.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { openFixture, releases, truthOf } from '../../vmcore/fixtures.ts';
import { socketAt } from '../inet-sockets.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../processes.ts';

/** The fixtures have the pages of some processes only: all that counts here is how many there are. */
const source: PageSource = {
  writeRuns: (fd, runs) =>
    runs.reduce((sum, { length }) => {
      return sum + writeSync(fd, Buffer.alloc(length, 1));
    }, 0),
};

const ringOffsets = {
  ...{ sqHead: 0, sqTail: 4, sqMask: 16, sqEntries: 24, sqFlags: 36, sqDropped: 32, sqArray: 320 },
  ...{ cqHead: 8, cqTail: 12, cqMask: 20, cqEntries: 28, cqOverflow: 44, cqes: 64, cqFlags: 40 },
};

/** What a directory takes of its file system: its files and directories, and their blocks. */
function taken(directory: string): { bytes: number; files: number } {
  const entries = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  const sizes = [directory, ...entries.map((name) => join(directory, name))].map((path) => statSync(path));
  return { bytes: sizes.reduce((sum, { blocks }) => sum + blocks * 512, 0), files: sizes.length };
}

const scratch = mkdtempSync(join(tmpdir(), 'otherworld-size-'));
after(() => rmSync(scratch, { recursive: true }));

for (const release of releases) {
  suite(`the images of ${release}`, () => {
    const kernel = openFixture(release);
    const roots = truthOf(release)
      .processes.map(({ pid }) => pid)
      .filter((pid) => pid > 2);
    const { groups } = captureProcesses(kernel, { roots, includeDescendants: true });

    test('take no more than was told from the model, and not much less', () => {
      assert.ok(groups.length > 3);
      let pages = 0;
      for (const group of groups) {
        const directory = join(scratch, `${release}-${group.id}`);
        const told = imagesSize(group);
        const { pagesBytes } = writeImages(group, source, directory);
        const { bytes, files } = taken(directory);
        const name = `group ${group.id}: ${bytes} bytes in ${files} files, told ${JSON.stringify(told)}`;
        assert.ok(bytes <= told.bytes && files <= told.files, name);
        // What is told besides is for files of a block or two each, and a core for each thread.
        const threads = group.processes.reduce((sum, { threads }) => sum + threads.length, 0);
        assert.ok(told.bytes < 1.02 * bytes + (512 << 10) + threads * (64 << 10), name);
        pages += pagesBytes;
      }
      assert.ok(pages > 1 << 20, `${pages} bytes of pages`);
    });
  });
}

test('images of sockets, rings and address spaces in turn take no more than was told', () => {
  const address = (port: number) => [127, 0, 0, port & 0xff];
  const owner = { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 };
  const ring: IoUring = {
    ...{ type: 'io-uring', id: 7, flags: 2, setup: 0, sqEntries: 8, cqEntries: 16, owner },
    ...{ requests: 0, completions: 0, unread: 0, issuer: undefined, offsets: ringOffsets },
    rings: listedRuns([{ address: 0, pages: 300, physical: 0 }]),
    entries: listedRuns([{ address: 0, pages: 200, physical: 0 }]),
  };
  const sockets = Array.from({ length: 600 }, (_, i) => ({
    ...socketAt(address(i)),
    ...{ id: 1000 + i, inode: 1000 + i },
  }));
  const shape = (pages: number, pid: number) => {
    const runs = listedRuns([{ address: 0x40_0000, pages, physical: 0 }]);
    const over = pid === 10 ? { id: 10 } : { id: pid, copyOf: 10 };
    return processOf(pid, { memory: memoryOf([areaOf(0x40_0000, pages, { runs })], over) });
  };
  // A, B, A: both of A have one store.
  const plain = groupOf([shape(500, 10), shape(400, 11), shape(500, 12)]);
  const group = { ...plain, files: { ...plain.files, files: [...sockets, ring] } };
  const told = imagesSize(group);
  const directory = join(scratch, 'kinds');
  const { pagesBytes } = writeImages(group, source, directory);
  const { bytes, files } = taken(directory);
  const name = `${bytes} bytes in ${files} files, told ${JSON.stringify(told)}`;
  assert.ok(files > 600 && bytes <= told.bytes && files <= told.files, name);
  assert.ok(told.leastBytes >= 900 * 4096 && told.leastBytes <= pagesBytes, name);
  const stores = readdirSync(directory).filter((file) => file.startsWith('pages-'));
  const ofA = stores.filter((file) => statSync(join(directory, file)).size === 500 * 4096);
  assert.equal(ofA.length, 1, stores.join());
});
