import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type NamedFile, namedFile } from '../../../../src/capture/files/named.ts';
import { deletedToMake, ledElsewhere } from '../../../../src/capture/files/path/roots-alone.ts';
import { FileRefusal } from '../../../../src/capture/files/refusal.ts';
import { lateNameOf } from '../../../../src/capture/files/sockets/unix/unix-file.ts';
import { noSandboxes } from '../../../../src/capture/sandboxes.ts';
import { dentryStruct, resolvePath } from '../../../../src/linux/dcache.ts';
import { fdSlots } from '../../../../src/linux/fdtable.ts';
import { fileAt } from '../../../../src/linux/file.ts';
import { inodeStruct } from '../../../../src/linux/fs.ts';
import { vfsmountOf } from '../../../../src/linux/mount.ts';
import { findTaskByPid } from '../../../../src/linux/pid.ts';
import { taskAt } from '../../../../src/linux/sched.ts';
import type { Kernel } from '../../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../../../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`what CRIU would make by its path for a process of ${release} in a sandbox`, () => {
    const { kinds } = truthOf(release);
    const name = Buffer.from('/tmp/gone-too');
    const fileOf = (kernel: Kernel, path: string): NamedFile => {
      const { files } = taskAt(kernel, findTaskByPid(kernel, kinds.pid) ?? assert.fail());
      const open = fdSlots(kernel, files).flatMap(({ file }) => {
        try {
          const opened = fileAt(kernel, file);
          if (opened === undefined) return [];
          return [namedFile({ kernel, sandboxes: noSandboxes }, opened.f_mnt, opened.f_dentry)];
        } catch (error) {
          // Pipes, sockets and the like.
          if (error instanceof FileRefusal) return [];
          throw error;
        }
      });
      return open.find((one) => one.path === path) ?? assert.fail(path);
    };
    const inside = (kernel: Kernel) => ({ kernel, sandboxes: { unitOf: () => 'web.service' } });
    const outside = (kernel: Kernel) => ({ kernel, sandboxes: noSandboxes });

    test('is no matter outside of a sandbox', () => {
      const kernel = openFixture(release);
      const gone = fileOf(kernel, '/tmp/gone-too');
      assert.ok(gone.deleted);
      assert.equal(deletedToMake(outside(kernel), gone), undefined);
      assert.equal(lateNameOf(outside(kernel), gone, name), undefined);
    });

    const why = 'which cannot be made in its sandbox: others than root can write to /tmp$';

    test('is made by this program if it is a deleted regular file in a directory that is there', () => {
      const kernel = openFixture(release);
      const gone = fileOf(kernel, '/tmp/gone-too');
      const late = deletedToMake(inside(kernel), gone) ?? assert.fail();
      assert.deepEqual([late.path, late.identity.inode], ['/tmp/gone-too', gone.identity.inode]);
      assert.deepEqual([late.directory.mode, late.directory.uid], [0o041777, 0]);
    });

    test('is refused if it is no regular file, or its directory is deleted as well', () => {
      const kernel = openFixture(release);
      const gone = fileOf(kernel, '/tmp/gone-too');
      const { dentry } = fileOf(kernel, '/tmp/file');
      const [Dentry, Inode] = [kernel.bind(dentryStruct), kernel.bind(inodeStruct)];
      const patch = (at: bigint, bytes: Uint8Array) => ({ physical: kernel.memory.translate(at), bytes });
      const fifo = [patch(gone.inode.address + BigInt(Inode.offsetOf('i_mode')), u16(0o010600))];
      // As if that had been its directory.
      const inDeleted = [
        patch(gone.dentry + BigInt(Dentry.offsetOf('d_parent')), u64(dentry)),
        patch(dentry + BigInt(Dentry.offsetOf('d_hashPprev')), u64(0n)),
      ];
      for (const patches of [fifo, inDeleted]) {
        const patched = openPatched(release, patches);
        const file = { ...gone, inode: patched.bind(inodeStruct).at(gone.inode.address) };
        assert.throws(
          () => deletedToMake(inside(patched), file),
          new RegExp(`^FileRefusal: has the deleted file /tmp/gone-too open, ${why}`),
        );
      }
    });

    test('is refused if it is a socket of which the file is deleted', () => {
      const kernel = openFixture(release);
      assert.throws(
        () => lateNameOf(inside(kernel), fileOf(kernel, '/tmp/gone-too'), name),
        new RegExp(`^FileRefusal: has the unix socket /tmp/gone-too, deleted, ${why}`),
      );
    });

    test('is bound late if it is a socket that has its name still', () => {
      const kernel = openFixture(release);
      const file = { ...fileOf(kernel, '/tmp/gone-too'), deleted: false };
      const late = lateNameOf(inside(kernel), file, name) ?? assert.fail();
      assert.deepEqual([late.path, late.identity], [file.path, file.identity]);
      const { mode, uid, gid, fileSystem } = late.directory;
      assert.deepEqual([mode, uid, gid, fileSystem], [0o041777, 0, 0, file.identity.fileSystem]);
      // Wherever its name leads: `/var/run` is a link.
      assert.deepEqual(lateNameOf(inside(kernel), file, Buffer.from('x')), late);
      assert.throws(
        () => lateNameOf(inside(kernel), file, Buffer.of(0x2f, 0xff)),
        /whose name is not UTF-8$/,
      );
    });

    test('is bound late, below directories of root alone, if it has another name than was bound', () => {
      const kernel = openFixture(release);
      const open = fileOf(kernel, '/tmp/gone-too');
      const Inode = kernel.bind(inodeStruct);
      const { directories } = resolvePath(kernel, vfsmountOf(kernel, open.mount), open.dentry);
      const patches = directories.flatMap((directory) => {
        const inode = kernel.bind(dentryStruct).at(directory).d_inode;
        const at = (member: 'i_mode' | 'i_uid') =>
          kernel.memory.translate(inode + BigInt(Inode.offsetOf(member)));
        return [
          { physical: at('i_mode'), bytes: u16(0o40755) },
          { physical: at('i_uid'), bytes: u32(0) },
        ];
      });
      const patched = openPatched(release, patches);
      const file = { ...fileOf(patched, '/tmp/gone-too'), deleted: false };
      const lateAs = (bound: string) => lateNameOf(inside(patched), file, Buffer.from(bound))?.path;
      assert.equal(lateAs('/tmp/gone-too'), undefined);
      assert.equal(lateAs('gone-too'), undefined);
      for (const bound of ['/var/tmp/gone-too', '/tmp/part', './gone-too'])
        assert.equal(lateAs(bound), file.path);
      const lateOutside = (bound: string) => lateNameOf(outside(patched), file, Buffer.from(bound))?.path;
      assert.equal(lateOutside('/var/tmp/gone-too'), undefined, 'CRIU binds it by what leads there');
      assert.equal(lateOutside('/tmp/part'), file.path);
    });

    test("is made where all directories above it are root's alone, and refused if one is not", () => {
      const kernel = openFixture(release);
      const { mount, dentry } = fileOf(kernel, '/tmp/gone-too');
      const { directories } = resolvePath(kernel, vfsmountOf(kernel, mount), dentry);
      const inodes = directories.map((one) => kernel.bind(dentryStruct).at(one).d_inode);
      assert.equal(inodes.length, 2);
      const Inode = kernel.bind(inodeStruct);
      const at = (inode: bigint, member: 'i_mode' | 'i_uid'): number =>
        kernel.memory.translate(inode + BigInt(Inode.offsetOf(member)));
      const patches = (modes: readonly number[], uids: readonly number[]) =>
        inodes.flatMap((inode, i) => [
          { physical: at(inode, 'i_mode'), bytes: u16(0o040000 | (modes[i] ?? 0)) },
          { physical: at(inode, 'i_uid'), bytes: u32(uids[i] ?? 0) },
        ]);
      const look = (modes: readonly number[], uids: readonly number[]): string => {
        const patched = openPatched(release, patches(modes, uids));
        return ledElsewhere(inside(patched), fileOf(patched, '/tmp/gone-too')) ?? 'made';
      };
      assert.equal(look([0o755, 0o700], [0, 0]), 'made');
      assert.equal(look([0o755, 0o1755], [0, 0]), 'made');
      assert.equal(look([0o755, 0o755], [0, 33]), '/tmp');
      assert.equal(look([0o755, 0o775], [0, 0]), '/tmp');
      assert.equal(look([0o755, 0o757], [0, 0]), '/tmp');
      // However high above it.
      assert.equal(look([0o755, 0o755], [33, 0]), '/');
      assert.equal(look([0o775, 0o755], [0, 0]), '/');
    });
  });
}

function u16(value: number): Uint8Array {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}
