import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, linkSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { filesToFind } from '../../../src/crash-world/stages/capture-stage.ts';
import type { UnwrittenFile } from '../../../src/model/file.ts';
import type { FileIdentity } from '../../../src/model/open-file.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { inodeGeneration } from '../../../src/system/inode-generation.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { sharedAcl } from '../acl.ts';
import { getxattr, isRoot, netRaw, oldDisk, page, placeAt, setxattr, withOpen } from './old-disk.ts';

suite('writing back files of which the journal did not have the names', () => {
  const { root, unwritten, others, back, refused, content, put, remove } = oldDisk();
  after(remove);
  const dirty = listedRuns([page(0, 25)]);
  let directory = '';
  let panic = 0n;

  /** Begins a directory that the dead kernel changed after the disk had it last. */
  function begin(name: string, files: Record<string, string>): void {
    directory = name;
    rmSync(join(root, name), { recursive: true, force: true });
    mkdirSync(join(root, name));
    for (const [file, text] of Object.entries(files)) put(`${name}/${file}`, text);
    diskKnows();
  }
  /** The disk has all that was done to the directory until now. */
  function diskKnows(): void {
    panic = statSync(join(root, directory), { bigint: true }).mtimeNs + 1n;
  }
  /** A file that memory has there. */
  function moved(
    name: string,
    changes: Partial<UnwrittenFile> = {},
    identity: Partial<FileIdentity> = {},
  ): UnwrittenFile {
    const known = { directoryModifiedNanoseconds: panic, dirty, isWhole: true, ...changes };
    const { path, identity: own, ...rest } = unwritten(`/${directory}/${name}`, 10, known);
    return { path, ...rest, identity: { ...own, inode: 1, generation: 1, ...identity } };
  }
  /** By what the dead kernel knew a file that the disk has under this name. */
  const as = (name: string): Pick<FileIdentity, 'inode' | 'generation' | 'sizeBytes' | 'mode'> => {
    const { ino: inode, size: sizeBytes, mode } = statSync(join(root, directory, name));
    const generation = withOpen(join(root, directory, name), inodeGeneration) ?? 0;
    return { inode, generation, sizeBytes, mode };
  };
  const clean = { dirty: listedRuns([]), isWhole: false };
  const names = () => readdirSync(join(root, directory)).toSorted();
  const contents = () => Object.fromEntries(names().map((name) => [name, content(`${directory}/${name}`)]));
  const made = (...files: string[]) =>
    `files that the disk did not have are made anew, without extended attributes: ${files.map((name) => `/${directory}/${name}`).join(', ')}`;
  const displaced = (name: string, aside: string) =>
    `what the disk had as /${directory}/${name} is /${directory}/${aside} now: it was replaced, or had got another name, shortly before the panic`;
  const renamed = (name: string, from: string) =>
    `/${directory}/${name} was /${directory}/${from} on the disk, and was renamed shortly before the panic`;

  test('a file that took the place of another is put there, and the other is kept', () => {
    begin('replaced', { f: 'older' });
    const file = moved('f');
    const { problems, notes, writeBack } = back(file);
    assert.deepEqual([problems, notes], [[], [made('f'), displaced('f', '.f.otherworld-ID')]]);
    assert.deepEqual(contents(), { '.f.otherworld-ID': 'older', f: 'z'.repeat(10) });
    assert.equal(writeBack.outcomeOf(file)?.made?.inode, as('f').inode);
  });

  test('several are, whatever that does to the time of their directory', () => {
    begin('several', { f: 'older', g: 'older' });
    const { problems } = back(moved('f'), moved('g'), moved('h'));
    assert.deepEqual(problems, []);
    assert.deepEqual(names(), ['.f.otherworld-ID', '.g.otherworld-ID', 'f', 'g', 'h']);
  });

  test('a file that was renamed over another has its content from the disk and from memory', () => {
    begin('renamed', { 'f.new': 'x'.repeat(PAGE_SIZE + 10), f: 'older' });
    const identity = as('f.new');
    const changes = { dirty: listedRuns([page(PAGE_SIZE, 25)]), isWhole: false };
    const { problems, notes } = back(moved('f', changes, identity));
    assert.deepEqual([problems, notes], [[], [renamed('f', 'f.new'), displaced('f', '.f.otherworld-ID')]]);
    assert.deepEqual(contents(), { '.f.otherworld-ID': 'older', f: 'x'.repeat(PAGE_SIZE) + 'z'.repeat(10) });
    assert.equal(as('f').inode, identity.inode);
  });

  test('files that moved on by one, as logs do, all have their names, in whatever order they come', () => {
    for (const order of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 0, 2],
      [0, 2, 1],
    ]) {
      begin('logs', { log: 'first', 'log.1': 'second' });
      const files = [moved('log'), moved('log.1', clean, as('log')), moved('log.2', clean, as('log.1'))];
      const { problems, notes } = back(...order.flatMap((i) => files[i] ?? []));
      assert.deepEqual(problems, [], order.join());
      assert.deepEqual(
        notes.toSorted(),
        [made('log'), renamed('log.1', 'log'), renamed('log.2', 'log.1')].toSorted(),
        order.join(),
      );
      assert.deepEqual(contents(), { log: 'z'.repeat(10), 'log.1': 'first', 'log.2': 'second' });
    }
  });

  test('two files that changed places do so', () => {
    begin('swapped', { a: 'one', b: 'two' });
    const files = [moved('a', clean, as('b')), moved('b', clean, as('a'))];
    const { problems, notes } = back(...files);
    assert.deepEqual([problems, notes], [[], [renamed('a', 'b'), renamed('b', 'a')]]);
    assert.deepEqual(contents(), { a: 'two', b: 'one' });
  });

  test('a file that has other rights on the disk, or would get gaps, is not renamed', () => {
    begin('refused', { f: 'good', 'f.new': 'x'.repeat(10) });
    const now = as('f.new');
    const whole = /another file in its place on the disk, and not whole/;
    refused(moved('f', clean, { ...now, mode: 0o100600 }), whole);
    refused(moved('f', clean, { ...now, uid: 1 }), whole);
    refused(moved('f', clean, { ...now, gid: 1 }), whole);
    refused(moved('g', { ...clean, hasAcl: true }, now), /is not on the disk, and not whole/);
    const grown = { ...now, sizeBytes: 2 * PAGE_SIZE + 10 };
    refused(moved('f', { ...clean, sectors: 24 }, grown), whole);
    refused(moved('f', { isWhole: false, dirty: listedRuns([page(2 * PAGE_SIZE, 25)]) }, grown), whole);
    assert.deepEqual(contents(), { f: 'good', 'f.new': 'x'.repeat(10) });
    const { problems } = back(moved('f', {}, { ...now, mode: 0o100600 }));
    assert.deepEqual(problems, []);
    assert.equal(as('f').mode, 0o100600);
    assert.equal(content('refused/f'), 'z'.repeat(10));
  });

  test('a name is not taken away before what has it in memory is there', () => {
    for (const names of [
      ['f', 'f~'],
      ['f~', 'f'],
    ]) {
      begin('backup', { f: 'good' });
      const files = names.map((name) =>
        name === 'f' ? moved('f', { hasAcl: true }) : moved('f~', clean, as('f')),
      );
      const { problems } = back(...files);
      assert.match(problems.map(({ problem }) => problem).join(), /had an access control list/);
      assert.match(
        problems.map(({ problem }) => problem).join(),
        /is \/backup\/f on the disk, and stays there/,
      );
      assert.deepEqual(contents(), { f: 'good' });
    }
    begin('link', { conf: 'good' });
    others.add('/link/conf');
    refused(moved('conf.real', clean, as('conf')), /is \/link\/conf on the disk, and stays there/);
    others.clear();
    assert.deepEqual(contents(), { conf: 'good' });
  });

  test('a file that is missed at first is found out to have been renamed later', () => {
    begin('late', { f: 'older', 'g.new': 'x'.repeat(10) });
    const { writeBack } = back(moved('f'));
    const late = moved('g', clean, as('g.new'));
    writeBack.write([late], () => undefined);
    assert.equal(writeBack.outcomeOf(late)?.problem, undefined);
    assert.deepEqual(names(), ['.f.otherworld-ID', 'f', 'g']);
  });

  test('a file system without generations is not believed', { skip: !isRoot }, () => {
    begin('vague', {});
    execFileSync('mount', ['-t', 'tmpfs', 'none', join(root, 'vague')]);
    try {
      put('vague/f', 'older');
      put('vague/f.new', 'x'.repeat(10));
      panic = BigInt(Date.now() + 60_000) * 1_000_000n;
      refused(moved('f'), /another file than before the panic/);
      refused(moved('g', clean, as('f.new')), /not whole/);
    } finally {
      execFileSync('umount', [join(root, 'vague')]);
    }
  });

  test('many files that are made are not all named', () => {
    begin('many', {});
    const { notes } = back(...Array.from({ length: 12 }, (_, i) => moved(`f${i}`)));
    assert.equal(notes.length, 1);
    assert.match(notes[0] ?? '', /\/many\/f9 and 2 more$/);
  });

  test('what a directory gives to new files is taken away from one that had no access control list', {
    skip: !isRoot,
  }, () => {
    begin('inherited', {});
    const acl = sharedAcl(1000);
    const path = join(root, 'inherited');
    assert.equal(setxattr(path, 'system.posix_acl_default', acl, acl.length, 0), 0);
    put('inherited/plain', '');
    assert.ok(Number(getxattr(join(path, 'plain'), 'system.posix_acl_access', null, 0)) > 0);
    assert.deepEqual(back(moved('f')).problems, []);
    assert.equal(getxattr(join(path, 'f'), 'system.posix_acl_access', null, 0), -constants.errno.ENODATA);
    assert.equal(as('f').mode, 0o100640);
  });

  test('what was set aside is named even if its own turn ends badly', () => {
    begin('badly', { log: 'first' });
    const rotated = moved('log.1', { ...clean, links: 2 }, as('log'));
    const { problems, notes } = back(moved('log'), rotated);
    assert.match(problems[0]?.problem ?? '', /not on the disk under this name, and has others/);
    assert.ok(notes.includes(displaced('log', '.log.otherworld-ID')), notes.join());
    assert.deepEqual(contents(), { '.log.otherworld-ID': 'first', log: 'z'.repeat(10) });
  });

  test('what was set aside is no set-user-ID program any more', { skip: !isRoot }, () => {
    begin('armed', { f: 'older', g: 'older' });
    chmodSync(join(root, 'armed/f'), 0o4755);
    setxattr(join(root, 'armed/g'), 'security.capability', netRaw, netRaw.length, 0);
    const { notes } = back(moved('f', {}, { mode: 0o100755 }), moved('g'));
    for (const name of ['f', 'g']) {
      const aside = `.${name}.otherworld-ID`;
      assert.ok(
        notes.includes(`/armed/${aside} is no set-user-ID program any more, and has no file capabilities`),
        notes.join(),
      );
      assert.equal(
        getxattr(join(root, 'armed', aside), 'security.capability', null, 0),
        -constants.errno.ENODATA,
      );
      assert.equal(statSync(join(root, 'armed', aside)).mode & 0o6000, 0);
    }
  });

  test('a set-user-ID program that has other names keeps its bit, and that is said', () => {
    begin('names', { g: 'older' });
    chmodSync(join(root, 'names/g'), 0o4755);
    linkSync(join(root, 'names/g'), join(root, 'names/h'));
    diskKnows();
    const { notes } = back(moved('g', {}, { mode: 0o100755 }));
    assert.ok(
      notes.includes(
        '/names/.g.otherworld-ID is a set-user-ID program or has file capabilities, as have its other names',
      ),
      notes.join(),
    );
    assert.equal(as('h').mode, 0o104755);
  });

  test('nothing is moved where memory need not be right', () => {
    begin('still', { f: 'older', g: 'x'.repeat(10) });
    symlinkSync('g', join(root, 'still/link'));
    mkdirSync(join(root, 'still/d'));
    linkSync(join(root, 'still/g'), join(root, 'still/h'));
    diskKnows();
    const mtimeNs = panic - 1n;
    const before = names();
    const another = /another file than before the panic/;
    const { uuid, magic, device } = placeAt(join(root, 'still'));
    const elsewhere = { fileSystem: { uuid, magic: magic + 1, device } };
    refused(moved('f', { directoryModifiedNanoseconds: mtimeNs }), another);
    refused(moved('f', { links: 2 }), another);
    refused(moved('f', {}, { generation: 0 }), another);
    refused(moved('f', { isWhole: false }), /not whole in memory/);
    refused(moved('f', { hasAcl: true }), /and had an access control list/);
    refused(moved('f', { hasAcl: undefined }), /and may have had an access control list/);
    refused(moved('f', elsewhere), /on another file system/);
    for (const name of ['d', 'link']) refused(moved(name, {}, { mode: 0o100644 }), another);
    refused(moved('new', { links: 2 }), /not on the disk under this name, and has others/);
    refused(moved('new', { links: 2 }, as('g')), /and has others/);
    refused(moved('new', { isWhole: false }, as('g')), /not whole/);
    const { generation, ...of } = as('f');
    refused(moved('new', { isWhole: false }, { ...of, generation: generation + 1 }), /not whole/);
    refused(moved('new', { ...clean, ...elsewhere }, as('f')), /on another file system/);
    const now = { ...clean, directoryModifiedNanoseconds: mtimeNs };
    refused(moved('new', now, as('f')), /not whole/);
    assert.deepEqual(names(), before);
    assert.equal(content('still/f'), 'older');
  });

  test('nothing is set aside where something has that name', () => {
    begin('taken', { f: 'older', '.f.otherworld-ID': 'kept', 'f.new': 'x'.repeat(10) });
    refused(moved('f'), /cannot be written: EEXIST/);
    assert.deepEqual(contents(), { '.f.otherworld-ID': 'kept', f: 'older', 'f.new': 'x'.repeat(10) });
    const { problems, notes } = back(moved('f', clean, as('f.new')));
    assert.match(problems[0]?.problem ?? '', /f.new cannot be renamed to .f.otherworld-ID: EEXIST/);
    assert.ok(notes.includes(displaced('f', 'f.new')), notes.join());
    assert.deepEqual(contents(), { '.f.otherworld-ID': 'kept', f: 'x'.repeat(10), 'f.new': 'older' });
  });

  test('what is kept of a file with a long name has a shorter one', () => {
    const name = 'ü'.repeat(125);
    begin('long-names', { [name]: 'older' });
    const aside = `.otherworld-ID-${as(name).inode}`;
    assert.deepEqual(back(moved(name)).problems, []);
    assert.deepEqual(names(), [aside, name]);
  });

  test('a group finds the file that was made, under its new inode and whatever path it used', () => {
    begin('found', {});
    const [file, other] = [moved('new'), moved('other', {}, { generation: 2 })];
    const { writeBack } = back(file);
    const found = filesToFind(
      {
        filesToCheck: [
          { path: '/bound/new', identity: file.identity },
          { path: '/found/new', identity: other.identity },
        ],
        unwritten: [file],
      },
      writeBack,
    );
    assert.deepEqual(
      found.map(({ identity }) => identity.inode),
      [as('new').inode, 1],
    );
  });
});
