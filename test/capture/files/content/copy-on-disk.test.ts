// Programs of this machine as copies of what a dead kernel had mapped and deleted.
import assert from 'node:assert/strict';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { contentOfCopy, type DeletedFile } from '../../../../src/capture/files/content/copy-on-disk.ts';
import { mountedDisks } from '../../../../src/crash-world/files/disk-files.ts';
import { listedRuns, type PageRun } from '../../../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../../../src/system/page.ts';

/** Any program with a build id. */
const PROGRAM = '/bin/cat';

suite('the copy of a deleted program', () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-copy-'));
  after(() => rmSync(directory, { recursive: true }));
  const program = join(directory, 'program');
  copyFileSync(PROGRAM, program);
  const old = readFileSync(program);
  const pages = Math.ceil(old.length / PAGE_SIZE);
  const stats = statSync(program, { bigint: true });
  const identity = {
    fileSystem: 'ext4',
    onDisk: true,
    // Of the one that has been deleted.
    inode: Number(stats.ino) + 1,
    generation: 1,
    mode: Number(stats.mode),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    sizeBytes: old.length,
    rdev: 0,
  };
  /** Old memory in which page N of the file lies N pages from the start. */
  const memory = (bytes: Uint8Array = old) => ({
    withView: <T>(physical: number, length: number, use: (bytes: Uint8Array) => T): T =>
      use(Uint8Array.from(bytes.subarray(physical, physical + length))),
  });
  const run = (first: number, count: number): PageRun => ({
    address: first * PAGE_SIZE,
    pages: count,
    physical: first * PAGE_SIZE,
  });
  /** All but pages 3 and 4, and the last one. */
  const most = [run(0, 3), run(5, pages - 6)];
  const deleted = (more: Partial<DeletedFile> = {}): DeletedFile => ({
    path: program,
    identity,
    modifiedNanoseconds: stats.mtimeNs,
    runs: listedRuns(most),
    ...more,
  });

  test('has the pages that are in no memory, to the end of the file', () => {
    const last = (pages - 1) * PAGE_SIZE;
    assert.deepEqual(contentOfCopy(memory(), deleted(), mountedDisks), {
      path: program,
      inode: Number(stats.ino),
      ranges: [
        { offset: 3 * PAGE_SIZE, length: 2 * PAGE_SIZE },
        { offset: last, length: old.length - last },
      ],
    });
  });

  test('has the same bytes wherever memory has any', () => {
    const changed = Buffer.from(old);
    changed[7 * PAGE_SIZE] = (changed[7 * PAGE_SIZE] ?? 0) ^ 1;
    assert.equal(contentOfCopy(memory(changed), deleted(), mountedDisks), undefined);
    // A byte of a page that is in no memory tells nothing.
    const elsewhere = Buffer.from(old);
    elsewhere[3 * PAGE_SIZE] = (elsewhere[3 * PAGE_SIZE] ?? 0) ^ 1;
    assert.notEqual(contentOfCopy(memory(elsewhere), deleted(), mountedDisks), undefined);
  });

  test('has the same size, owner, mode and time of change', () => {
    const others: Partial<DeletedFile>[] = [
      { modifiedNanoseconds: stats.mtimeNs + 1n },
      { identity: { ...identity, sizeBytes: old.length - 1 } },
      { identity: { ...identity, mode: identity.mode ^ 0o4000 } },
      { identity: { ...identity, uid: identity.uid + 1 } },
      { identity: { ...identity, gid: identity.gid + 1 } },
    ];
    for (const other of others) {
      assert.equal(contentOfCopy(memory(), deleted(other), mountedDisks), undefined);
    }
  });

  test('is not told without its build id, which has to be in memory', () => {
    assert.equal(
      contentOfCopy(memory(), deleted({ runs: listedRuns([run(1, pages - 1)]) }), mountedDisks),
      undefined,
    );
    const text = join(directory, 'text');
    writeFileSync(text, 'x'.repeat(old.length));
    utimesSync(text, 1, 1);
    const other = {
      path: text,
      modifiedNanoseconds: 1_000_000_000n,
      identity: { ...identity, mode: statSync(text).mode },
    };
    assert.equal(contentOfCopy(memory(readFileSync(text)), deleted(other), mountedDisks), undefined);
  });

  test('is not looked for behind a symbolic link', () => {
    const link = join(directory, 'link');
    symlinkSync(program, link);
    assert.equal(contentOfCopy(memory(), deleted({ path: link }), mountedDisks), undefined);
    const real = join(directory, 'real');
    mkdirSync(real);
    copyFileSync(program, join(real, 'program'));
    symlinkSync(real, join(directory, 'linked'));
    const through = deleted({ path: join(directory, 'linked', 'program') });
    assert.equal(contentOfCopy(memory(), through, mountedDisks), undefined);
    assert.equal(
      contentOfCopy(memory(), deleted({ path: join(directory, 'none') }), mountedDisks),
      undefined,
    );
  });
});
