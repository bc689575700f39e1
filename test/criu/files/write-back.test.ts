import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { writeBack } from '../../../src/criu/files/write-back.ts';
import type { UnwrittenFile } from '../../../src/model/file.ts';

const PAGE = 4096;

/** Old memory whose page N is full of the letter N (`a` is 0). */
const memory = {
  view: (physical: number, length: number): Uint8Array =>
    Buffer.from(Array.from({ length }, (_, i) => 97 + Math.floor((physical + i) / PAGE))),
};

suite('writing back', () => {
  const root = mkdtempSync(join(tmpdir(), 'write-back-'));
  after(() => rmSync(root, { recursive: true }));

  function unwritten(
    path: string,
    changes: Partial<UnwrittenFile> = {},
    sizeBytes = 2 * PAGE,
  ): UnwrittenFile {
    const inode = statSync(join(root, path), { throwIfNoEntry: false })?.ino ?? 0;
    return {
      path,
      identity: {
        fileSystem: 'ext4',
        onDisk: true,
        inode,
        generation: 0,
        mode: 0o100640,
        uid: process.getuid?.() ?? 0,
        gid: process.getgid?.() ?? 0,
        sizeBytes,
        rdev: 0,
      },
      accessedMicroseconds: 1e15,
      modifiedMicroseconds: 1.5e15,
      dirty: [],
      clean: [],
      isWhole: false,
      ...changes,
    };
  }

  test('puts dirty pages in their place, with the size and times of then', () => {
    writeFileSync(join(root, 'grown'), 'x'.repeat(100));
    const file = unwritten('grown', { dirty: [{ address: PAGE, pages: 1, physical: 2 * PAGE }] }, PAGE + 10);
    const { written, bytes, problems } = writeBack([file], memory, root);
    assert.deepEqual(problems, []);
    assert.deepEqual(written, ['grown']);
    assert.equal(bytes, 10);
    const content = readFileSync(join(root, 'grown'), 'latin1');
    assert.equal(content, 'x'.repeat(100) + '\0'.repeat(PAGE - 100) + 'c'.repeat(10));
    assert.equal(statSync(join(root, 'grown')).mtimeMs, 1.5e12);
  });

  test('cuts a file that the dead kernel had made shorter', () => {
    writeFileSync(join(root, 'cut'), 'y'.repeat(3 * PAGE));
    writeBack([unwritten('cut', {}, 5)], memory, root);
    assert.equal(readFileSync(join(root, 'cut'), 'latin1'), 'yyyyy');
  });

  test('writes clean pages only where the disk has something else', () => {
    writeFileSync(join(root, 'clean'), 'a'.repeat(PAGE) + 'x'.repeat(PAGE));
    const clean = [
      { address: 0, pages: 1, physical: 0 },
      { address: PAGE, pages: 1, physical: PAGE },
    ];
    const { bytes } = writeBack([unwritten('clean', { clean })], memory, root);
    assert.equal(bytes, PAGE);
    assert.equal(readFileSync(join(root, 'clean'), 'latin1'), 'a'.repeat(PAGE) + 'b'.repeat(PAGE));
  });

  test('makes a file that the disk does not know yet, if all of it is in memory', () => {
    const dirty = [{ address: 0, pages: 2, physical: 0 }];
    const { problems } = writeBack([unwritten('new', { dirty, isWhole: true }, PAGE + 1)], memory, root);
    assert.deepEqual(problems, []);
    assert.equal(readFileSync(join(root, 'new'), 'latin1'), `${'a'.repeat(PAGE)}b`);
    assert.equal(statSync(join(root, 'new')).mode, 0o100640);
  });

  test('does not make a file of which a part was on the disk only', () => {
    const { problems } = writeBack(
      [unwritten('half', { dirty: [{ address: 0, pages: 1, physical: 0 }] })],
      memory,
      root,
    );
    assert.deepEqual(problems, [{ path: 'half', problem: 'is not on the disk, and not whole in memory' }]);
  });

  test('leaves a file alone that is not the one it was', () => {
    writeFileSync(join(root, 'other'), 'untouched');
    const file = unwritten('other', { dirty: [{ address: 0, pages: 1, physical: 0 }] });
    const renamed = { ...file, identity: { ...file.identity, inode: file.identity.inode + 1 } };
    const { problems, written } = writeBack([renamed], memory, root);
    assert.deepEqual(written, []);
    assert.match(problems[0]?.problem ?? '', /another file than before the panic/);
    assert.equal(readFileSync(join(root, 'other'), 'latin1'), 'untouched');
  });

  test('goes on with the other files after one that cannot be written', () => {
    mkdirSync(join(root, 'directory'));
    writeFileSync(join(root, 'fine'), '');
    const dirty = [{ address: 0, pages: 1, physical: 0 }];
    const { problems, written } = writeBack(
      [unwritten('directory', { dirty }), unwritten('fine', { dirty }, 3)],
      memory,
      root,
    );
    assert.deepEqual(written, ['fine']);
    assert.match(problems[0]?.problem ?? '', /EISDIR/);
  });
});
