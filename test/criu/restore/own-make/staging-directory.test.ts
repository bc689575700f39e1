import assert from 'node:assert/strict';
import { lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { StagingDirectory } from '../../../../src/criu/restore/own-make/staging-directory.ts';
import type { NameIn } from '../../../../src/system/file-calls.ts';
import { inodeOf } from '../../../../src/system/file-handle.ts';
import { readAttributes, setAttribute } from '../../../../src/system/xattr.ts';
import { aclFor } from './acl.ts';
import { needsRoot, OthersDirectory, S_IFSOCK } from './others-directory.ts';

const [ACCESS, DEFAULT] = ['system.posix_acl_access', 'system.posix_acl_default'];

suite('what others do while something is made in their directory', { skip: needsRoot }, () => {
  let place: OthersDirectory;
  beforeEach(() => {
    place = new OthersDirectory();
  });
  afterEach(() => place.end());

  /** Leaves a socket, of which the file may be taken away. */
  const leaveOld = () => {
    place.leave('s');
    const old = inodeOf(-100, place.at('s'));
    return old && place.planned(place.make(), { identity: place.file({ ...old, onDisk: true }) });
  };
  /** Their tree, in place of the old socket as soon as that was looked at. */
  const exchange = (): void => {
    mkdirSync(join(place.root, 'theirs'));
    writeFileSync(join(place.root, 'theirs', 'precious'), 'theirs');
    renameSync(place.at('s'), join(place.root, 'old'));
    renameSync(join(place.root, 'theirs'), place.at('s'));
  };

  test('another thing is put back that was put in place of the old socket', async (t) => {
    const planned = leaveOld();
    if (planned === undefined) return t.skip('needs ext4 or XFS');
    class Raced extends StagingDirectory {
      override take(at: NameIn): NameIn {
        exchange();
        return super.take(at);
      }
    }
    const { problems, left } = await place.bind([planned], { stage: (fd) => new Raced(fd) });
    assert.match(problems.join(), /cannot be bound: something else is at/);
    assert.deepEqual(left, ['s']);
    assert.equal(readFileSync(place.at('s/precious'), 'utf8'), 'theirs');
  });

  test('it stays, and is named, where there is something in its place again', async (t) => {
    const planned = leaveOld();
    if (planned === undefined) return t.skip('needs ext4 or XFS');
    class Raced extends StagingDirectory {
      override take(at: NameIn): NameIn {
        exchange();
        const taken = super.take(at);
        writeFileSync(place.at('s'), 'another');
        return taken;
      }
    }
    const { problems, left } = await place.bind([planned], { stage: (fd) => new Raced(fd) });
    const [, kept = ''] =
      /something else was at .*, and is (\S+) now: it cannot be put back/.exec(problems.join()) ??
      assert.fail(problems.join());
    assert.equal(readFileSync(join(kept, 'precious'), 'utf8'), 'theirs');
    assert.equal(readFileSync(place.at('s'), 'utf8'), 'another');
    assert.deepEqual(left, [kept.split('/').at(-2), 's'].toSorted());
    assert.deepEqual(readdirSync(join(kept, '..')), ['taken']);
  });

  test('nothing is put over what is there by then', async () => {
    class Raced extends StagingDirectory {
      override give(made: NameIn, at: NameIn): void {
        writeFileSync(place.at('s'), 'another');
        super.give(made, at);
      }
    }
    const { problems, left } = await place.bind([place.planned(place.make())], {
      stage: (fd) => new Raced(fd),
    });
    assert.match(problems.join(), /EEXIST/);
    assert.deepEqual(left, ['s']);
    assert.equal(readFileSync(place.at('s'), 'utf8'), 'another');
  });

  test('a socket that has its name goes, though what it was made in cannot be removed', async () => {
    class Stuck extends StagingDirectory {
      override remove(): void {
        super.remove();
        throw new Error('meant');
      }
    }
    const { problems, resource, left } = await place.bind([place.planned(place.make())], {
      stage: (fd) => new Stuck(fd),
    });
    assert.match(problems.join(), /cannot be bound: meant/);
    assert.deepEqual(left, ['s']);
    assert.deepEqual(resource.finish(false), []);
    assert.deepEqual(readdirSync(place.path), []);
  });

  test('an ACL that the directory gives to what is made in it is none of a socket', async (t) => {
    try {
      setAttribute(place.path, DEFAULT, aclFor(999));
    } catch {
      return t.skip('needs a file system with ACLs');
    }
    const planned = place.planned(place.make(), { identity: place.file({ mode: S_IFSOCK | 0o660 }) });
    assert.deepEqual((await place.bind([planned])).problems, []);
    assert.equal(lstatSync(place.at('s')).mode & 0o777, 0o660);
    assert.deepEqual(readAttributes(place.at('s')), []);
  });

  test('the ACL of the socket that was there is that of the new one', async (t) => {
    const planned = leaveOld();
    if (planned === undefined) return t.skip('needs ext4 or XFS');
    setAttribute(place.at('s'), ACCESS, aclFor(999));
    setAttribute(place.at('s'), 'trusted.note', Buffer.from('kept'));
    const before = readAttributes(place.at('s'));
    assert.deepEqual(before.map(({ name }) => name).toSorted(), [ACCESS, 'trusted.note']);
    const identity = { ...planned.identity, mode: lstatSync(place.at('s')).mode };
    assert.deepEqual((await place.bind([{ ...planned, identity }])).problems, []);
    assert.deepEqual(readAttributes(place.at('s')), before);
  });
});
