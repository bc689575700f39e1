// Images of processes with very many of one thing.
import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { ImageDirectory, type PageSource } from '../../../src/criu/images/image.ts';
import { writePrivatePages } from '../../../src/criu/images/pagemap.ts';
import { ringsOf } from '../../../src/criu/images/plan/rings.ts';
import { writeSharedMemory } from '../../../src/criu/images/shared-memory.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { assertInProportion, elementsLookedAt } from '../../work.ts';
import { socketAt } from '../inet-sockets.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../processes.ts';

const noPages: PageSource = {
  writeRuns: (_, runs) => runs.reduce((sum, { length }) => sum + length, 0),
};

function inDirectory<T>(use: (directory: string) => T): T {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-many-'));
  try {
    return use(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

suite('images of very many things', () => {
  test('are any number, of which few are open, and each goes on where it was', () => {
    inDirectory((directory) => {
      const images = new ImageDirectory(directory);
      const open = () => readdirSync('/proc/self/fd').length;
      const before = open();
      const ids = Array.from({ length: 1000 }, (_, i) => i);
      let most = 0;
      for (const part of ['first', 'second', 'third'])
        for (const id of ids) {
          images.image('tcp-stream', id).bytes(Buffer.from(`${part} ${id} `));
          most = Math.max(most, open() - before);
        }
      images.close();
      assert.ok(most <= 260, `${most} are open`);
      assert.equal(open(), before);
      for (const id of ids) {
        const text = readFileSync(join(directory, `tcp-stream-${id.toString(16)}.img`), 'latin1').slice(8);
        assert.equal(text, `first ${id} second ${id} third ${id} `);
      }
      assert.throws(() => images.image('tcp-stream', 0).bytes(Buffer.from('late')), /after its end/);
    });
  });

  test('are not written on if they are not as long as they were written', () => {
    inDirectory((directory) => {
      const images = new ImageDirectory(directory);
      const first = images.image('tcp-stream', 1);
      for (let id = 2; id < 1000; id++) images.image('tcp-stream', id);
      appendFileSync(first.path, 'strange');
      assert.throws(
        () => first.bytes(Buffer.from('more')),
        /tcp-stream-1\.img: it ends at 15, and 8 bytes were/,
      );
      images.close();
    });
  });

  test('replaced pages that are not in order are no replacements: nothing is written in silence', () => {
    inDirectory((directory) => {
      const bytes = Buffer.alloc(PAGE_SIZE);
      const overrides = [0x20_0000, 0x10_0000].map((address) => ({ address, bytes }));
      const memory = memoryOf([areaOf(0x10_0000, 1), areaOf(0x20_0000, 1)], { overrides });
      const images = new ImageDirectory(directory);
      const write = () => writePrivatePages(images, noPages, 7, memory);
      assert.throws(write, /replaced memory at 0x100000 is not in order/);
      images.close();
    });
  });

  test('areas with replaced pages: each replacement is looked at once', () => {
    assertInProportion((things) =>
      inDirectory((directory) => {
        const places = Array.from({ length: things }, (_, i) => 0x10_0000 + 2 * i * PAGE_SIZE);
        const bytes = Buffer.alloc(PAGE_SIZE);
        const memory = memoryOf(
          places.map((start) => areaOf(start, 1)),
          { overrides: places.map((address) => ({ address, bytes })) },
        );
        const images = new ImageDirectory(directory);
        const work = elementsLookedAt(() => writePrivatePages(images, noPages, 7, memory));
        images.close();
        assert.equal(readFileSync(join(directory, 'pages-1.img')).length, things * PAGE_SIZE);
        return work;
      }),
    );
  });

  test('shared memories: how far each is mapped is known from one look at the areas', () => {
    assertInProportion((things) =>
      inDirectory((directory) => {
        const shmids = Array.from({ length: things }, (_, i) => i + 1);
        const vmas = shmids.map((shmid) => areaOf(shmid * 0x1_0000, 2, { kind: 'shared-memory', shmid }));
        const runs = listedRuns([{ address: 0, pages: 3, physical: 0 }]);
        const sharedMemory = shmids.map(
          (shmid) => ({ shmid, origin: 'anonymous', sizeBytes: 3 * PAGE_SIZE, runs }) as const,
        );
        const group = { ...groupOf([processOf(7, { memory: memoryOf(vmas) })]), sharedMemory };
        const images = new ImageDirectory(directory);
        const work = elementsLookedAt(() => writeSharedMemory(group, images, noPages));
        assert.equal(images.pagesBytes, 2 * things * PAGE_SIZE);
        images.close();
        return work;
      }),
    );
  });

  test('files that are no io_uring are not looked for among the descriptors', () => {
    assertInProportion((things) => {
      const files = Array.from({ length: things }, (_, i) => ({ ...socketAt([127, 0, 0, 1]), id: i + 1 }));
      const descriptors = files.map(({ id }) => ({ fd: id, fileId: id, closeOnExec: false }));
      const group = groupOf([processOf(7)]);
      const [filesId = 0] = group.processes.map((process) => process.filesId);
      const many = { ...group, files: { ...group.files, files, tables: [{ filesId, descriptors }] } };
      return elementsLookedAt(() => assert.deepEqual(ringsOf(many), []));
    });
  });
});
