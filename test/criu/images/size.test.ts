import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { imagesSize, type PageSource, writeImages } from '../../../src/criu/images/index.ts';
import { openFixture, releases, truthOf } from '../../vmcore/fixtures.ts';

/** The fixtures have the pages of some processes only: all that counts here is how many there are. */
const source: PageSource = {
  writeRuns: (fd, runs) =>
    runs.reduce((sum, { length }) => {
      return sum + writeSync(fd, Buffer.alloc(length, 1));
    }, 0),
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
