import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { unwrittenIn } from '../../../src/crash-world/stages/capture-stage.ts';
import { noFiles, type UnwrittenFile } from '../../../src/model/file.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { inodeGeneration } from '../../../src/system/inode-generation.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { getxattr, isRoot, netRaw, oldDisk, page, placeAt, setxattr, withOpen } from './old-disk.ts';

suite('writing back', () => {
  const { root, unwritten, back, refused, content, put, remove } = oldDisk();
  after(remove);

  test('puts dirty pages in their place, with the size of then', () => {
    put('grown', 'x'.repeat(100));
    const { written, bytes, problems } = back(
      unwritten('/grown', PAGE_SIZE + 10, { dirty: listedRuns([page(PAGE_SIZE, 2)]) }),
    );
    assert.deepEqual(problems, []);
    assert.deepEqual(written, ['/grown']);
    assert.equal(bytes, 10);
    assert.equal(content('grown'), 'x'.repeat(100) + '\0'.repeat(PAGE_SIZE - 100) + 'c'.repeat(10));
  });

  test('sets times to the nanosecond, before 1970 as well', () => {
    put('times', 'a'.repeat(5));
    back(unwritten('/times', 5, { clean: listedRuns([page(0, 0)]) }));
    const { atimeNs, mtimeNs } = statSync(join(root, 'times'), { bigint: true });
    assert.deepEqual([atimeNs, mtimeNs], [1_000_000_000_000_000_001n, 1_500_000_000_123_456_789n]);
    assert.deepEqual(back(unwritten('/times', 5, { clean: listedRuns([page(0, 0)]) })).written, []);
    back(unwritten('/times', 5, { clean: listedRuns([page(0, 0)]), modifiedNanoseconds: -1n }));
    assert.equal(statSync(join(root, 'times'), { bigint: true }).mtimeNs, -1n);
  });

  test('cuts a file where memory has zeros after its end and the disk has not', () => {
    put('cut', 'z'.repeat(100));
    assert.deepEqual(back(unwritten('/cut', 10, { clean: listedRuns([page(0, 25)]) })).problems, []);
    assert.equal(content('cut'), 'z'.repeat(10));
  });

  test('cuts a file of which memory counts fewer blocks', () => {
    put('emptied', 'y'.repeat(3 * PAGE_SIZE));
    assert.deepEqual(back(unwritten('/emptied', 0, { sectors: 0 })).problems, []);
    assert.equal(content('emptied'), '');
  });

  test('does not cut a file on the word of its size alone', () => {
    const long = 'y'.repeat(3 * PAGE_SIZE);
    put('long', long);
    for (const changes of [
      {},
      { sectors: 24 },
      { sectors: 23 },
      { clean: listedRuns([page(0, 3)]) },
      { dirty: listedRuns([page(0, 25), page(PAGE_SIZE, 3)]) },
    ]) {
      refused(unwritten('/long', 10, changes), /has 12288 bytes on the disk and had 10 in memory/);
      assert.equal(content('long'), long);
    }
    put('zeros', '\0'.repeat(100));
    refused(unwritten('/zeros', 50, { clean: listedRuns([page(0, 24)]) }), /no second sign/);
  });

  test('does not make a file longer on the word of its size alone', () => {
    put('short', 'y');
    refused(unwritten('/short', 2 ** 40, { dirty: listedRuns([page(0, 3)]) }), /no second sign/);
    refused(unwritten('/short', 2 ** 40, { sectors: 0 }), /no second sign/);
    assert.equal(content('short'), 'y');
    assert.deepEqual(back(unwritten('/short', 10 * PAGE_SIZE, { sectors: 80 })).problems, []);
    assert.equal(statSync(join(root, 'short')).size, 10 * PAGE_SIZE);
  });

  test('writes clean pages only where the disk has something else', () => {
    put('clean', 'a'.repeat(PAGE_SIZE) + 'x'.repeat(PAGE_SIZE));
    const { bytes } = back(
      unwritten('/clean', 2 * PAGE_SIZE, { clean: listedRuns([page(0, 0), page(PAGE_SIZE, 1)]) }),
    );
    assert.equal(bytes, PAGE_SIZE);
    assert.equal(content('clean'), 'a'.repeat(PAGE_SIZE) + 'b'.repeat(PAGE_SIZE));
  });

  test('makes a file that the disk does not know yet, if all of it is in memory', () => {
    const dirty = listedRuns([page(0, 0), page(PAGE_SIZE, 25)]);
    const { problems } = back(unwritten('/new', PAGE_SIZE + 10, { dirty, isWhole: true }));
    assert.deepEqual(problems, []);
    assert.equal(content('new'), 'a'.repeat(PAGE_SIZE) + 'z'.repeat(10));
    const { mode, mtimeNs } = statSync(join(root, 'new'), { bigint: true });
    assert.deepEqual([mode, mtimeNs], [0o100640n, 1_500_000_000_123_456_789n]);
  });

  test('does not make a file of which a part may be missing, or a set-user-ID program', () => {
    const whole = { dirty: listedRuns([page(0, 25)]), isWhole: true };
    refused(unwritten('/half', 10, { ...whole, isWhole: false }), /is not on the disk, and not whole/);
    refused(unwritten('/half', 9, whole), /is not on the disk, and not whole/);
    refused(unwritten('/half', 10, whole, { mode: 0o104755 }), /set-user-ID/);
    assert.ok(!existsSync(join(root, 'half')));
  });

  test('makes nothing behind a symbolic link, nor in another directory of the same name', () => {
    const whole = { dirty: listedRuns([page(0, 25)]), isWhole: true };
    for (const name of ['profile.d', 'mine']) mkdirSync(join(root, name));
    put('profile.d/known', '');
    const made = unwritten('/mine/evil.sh', 10, whole);
    const changed = unwritten('/profile.d/known', 10, whole);
    renameSync(join(root, 'mine'), join(root, 'was-mine'));
    symlinkSync('profile.d', join(root, 'mine'));
    refused(made, /is in \/mine, which is a directory no longer/);
    const behind = { ...changed, path: '/mine/known' };
    refused(behind, /is in \/mine, which is a directory no longer/);
    rmSync(join(root, 'mine'));
    refused(made, /is in \/mine, which is not on the disk/);
    mkdirSync(join(root, 'mine'));
    refused(made, /is in \/mine, which is another directory than before the panic/);
    refused({ ...made, directories: [] }, /no path/);
    assert.ok(!existsSync(join(root, 'profile.d/evil.sh')) && !existsSync(join(root, 'mine/evil.sh')));
    assert.equal(content('profile.d/known'), '');
  });

  test('writes to no file through a symbolic link', () => {
    put('target', 'untouched');
    const file = unwritten('/target', 9, { dirty: listedRuns([page(0, 0)]) });
    symlinkSync('target', join(root, 'link'));
    refused({ ...file, path: '/link' }, /another file than before the panic/);
    assert.equal(content('target'), 'untouched');
  });

  test('makes nothing on another file system', () => {
    const whole = { dirty: listedRuns([page(0, 25)]), isWhole: true };
    put('there', 'untouched');
    const { magic, uuid, device } = placeAt(root);
    for (const fileSystem of [
      { magic: magic + 1, uuid, device },
      { magic, uuid: '00112233445566778899aabbccddeeff', device: 1 },
      { magic, uuid: undefined, device: device + 1 },
    ]) {
      refused(unwritten('/elsewhere', 10, { ...whole, fileSystem }), /is on another file system/);
      refused(unwritten('/there', 9, { ...whole, fileSystem }), /is on another file system/);
    }
    assert.ok(!existsSync(join(root, 'elsewhere')));
    assert.equal(content('there'), 'untouched');
    const moved = { magic, uuid, device: uuid === undefined ? device : device + 1 };
    assert.deepEqual(back(unwritten('/elsewhere', 10, { ...whole, fileSystem: moved })).problems, []);
  });

  test('makes nothing where a mount is missing', { skip: !isRoot }, () => {
    const mounted = join(root, 'mounted');
    mkdirSync(mounted);
    execFileSync('mount', ['-t', 'tmpfs', 'none', mounted]);
    let file: UnwrittenFile;
    try {
      file = unwritten('/mounted/new', 10, { dirty: listedRuns([page(0, 25)]), isWhole: true });
    } finally {
      execFileSync('umount', [mounted]);
    }
    refused(file, /is in \/mounted, which is another directory/);
    assert.ok(!existsSync(join(mounted, 'new')));
  });

  test('writes nothing beside file capabilities, and keeps them', { skip: !isRoot }, () => {
    const path = join(root, 'capable');
    put('capable', 'a'.repeat(PAGE_SIZE));
    assert.equal(setxattr(path, 'security.capability', netRaw, netRaw.length, 0), 0);
    const isCapable = () => Number(getxattr(path, 'security.capability', null, 0)) === netRaw.length;
    assert.deepEqual(
      back(unwritten('/capable', PAGE_SIZE, { clean: listedRuns([page(0, 0)]) })).problems,
      [],
    );
    assert.ok(isCapable());
    refused(unwritten('/capable', PAGE_SIZE, { dirty: listedRuns([page(0, 1)]) }), /has file capabilities/);
    refused(unwritten('/capable', 0, { sectors: 0 }), /has file capabilities/);
    assert.ok(isCapable());
    assert.equal(content('capable'), 'a'.repeat(PAGE_SIZE));
  });

  test('writes nothing to a file that has another mode or owner', () => {
    put('secret', 'public');
    const file = unwritten('/secret', 6, { dirty: listedRuns([page(0, 1)]) });
    chmodSync(join(root, 'secret'), 0o666);
    refused(file, /another mode or owner/);
    assert.equal(content('secret'), 'public');
  });

  test('leaves a file alone that is not the one it was', () => {
    put('other', 'untouched');
    const dirty = listedRuns([page(0, 0)]);
    refused(unwritten('/other', 9, { dirty }, { inode: 1 }), /another file than before the panic/);
    const generation = (withOpen(join(root, 'other'), inodeGeneration) ?? 0) + 1;
    refused(unwritten('/other', 9, { dirty }, { generation }), /another file than before the panic/);
    assert.equal(content('other'), 'untouched');
  });

  test('goes on with the other files after one that cannot be written', () => {
    mkdirSync(join(root, 'directory'));
    put('fine', '');
    const { problems, written } = back(
      unwritten('/directory', 9, { dirty: listedRuns([page(0, 0)]) }, { mode: 0o100640 }),
      unwritten('/fine', 3, { dirty: listedRuns([page(0, 0)]) }),
    );
    assert.deepEqual(written, ['/fine']);
    assert.match(problems[0]?.problem ?? '', /another file than before/);
  });

  test('a group whose file could not be written back does not come back', () => {
    put('log', 'y'.repeat(100));
    const bad = unwritten('/log', 10, {});
    put('data', '');
    const good = unwritten('/data', 3, { dirty: listedRuns([page(0, 0)]) });
    const { writeBack } = back(bad, good);
    const note = () => assert.fail('written already');
    const group = (...files: UnwrittenFile[]) => ({
      processes: [],
      files: { ...noFiles, unwritten: files },
    });
    assert.deepEqual(unwrittenIn(group(good), writeBack, note), []);
    const members = [{ pid: 7, comm: 'db' }];
    const refusals = unwrittenIn({ ...group(bad, good), processes: members }, writeBack, note);
    assert.deepEqual(
      refusals.map(({ pid }) => pid),
      [7],
    );
    assert.match(
      refusals[0]?.reasons.join() ?? '',
      /^uses \/log, which has 100 bytes on the disk and had 10/,
    );
  });

  test('a file that writing back did not come upon is written when a group uses it, and once only', () => {
    put('missed', '');
    const file = unwritten('/missed', 3, { dirty: listedRuns([page(0, 0)]) });
    const group = { processes: [], files: { ...noFiles, unwritten: [file] } };
    const { writeBack } = back();
    assert.deepEqual(unwrittenIn(group, writeBack, assert.fail), []);
    assert.equal(content('missed'), 'aaa');
    truncateSync(join(root, 'missed'), 0);
    assert.deepEqual(unwrittenIn(group, writeBack, assert.fail), []);
    assert.equal(content('missed'), '');
  });
});
