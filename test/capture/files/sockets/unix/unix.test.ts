import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { CaptureContext } from '../../../../../src/capture/files/context.ts';
import { captureUnix } from '../../../../../src/capture/files/sockets/unix/unix.ts';
import { noSandboxes } from '../../../../../src/capture/sandboxes.ts';
import { dentryStruct } from '../../../../../src/linux/dcache.ts';
import { fdSlots } from '../../../../../src/linux/fdtable.ts';
import { fileAt } from '../../../../../src/linux/file.ts';
import { inodeStruct } from '../../../../../src/linux/fs.ts';
import { mountOf, mountStruct } from '../../../../../src/linux/mount.ts';
import { socketStruct } from '../../../../../src/linux/net.ts';
import { findPid, findTaskByPid } from '../../../../../src/linux/pid.ts';
import { readClocks } from '../../../../../src/linux/readers/clocks.ts';
import { fileKind } from '../../../../../src/linux/readers/file-kind.ts';
import { listTasks } from '../../../../../src/linux/readers/task-list.ts';
import { taskAt } from '../../../../../src/linux/sched.ts';
import { family, sockStruct, tcpState } from '../../../../../src/linux/sock.ts';
import { unixAddress, unixName, unixSock } from '../../../../../src/linux/unix.ts';
import type { UnixSocket } from '../../../../../src/model/socket.ts';
import { SOCK_DGRAM } from '../../../../../src/system/abi.ts';
import type { Kernel } from '../../../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../../../../vmcore/fixtures.ts';

/** A mount namespace that nobody has in the dumps. */
const SANDBOX = 0xffff_8880_dead_0000n;

class Sandboxed extends CaptureContext {
  override namespaceOf(): bigint {
    return SANDBOX;
  }
}

for (const release of releases) {
  suite(`unix sockets of ${release} that are bound to a path`, () => {
    const { kinds } = truthOf(release);
    const kernel = openFixture(release);
    const process = findTaskByPid(kernel, kinds.pid) ?? assert.fail();

    const socketsOf = (of: Kernel) =>
      fdSlots(of, taskAt(of, process).files).flatMap(({ file }) => {
        const open = fileAt(of, file);
        if (open === undefined || fileKind(of, open.f_op) !== 'socket') return [];
        const socket = of.bind(socketStruct).at(open.private_data);
        const sock = of.bind(sockStruct).at(socket.sk);
        return sock.family === family.unix ? [{ open, socket, sock }] : [];
      });
    const named = (state: number) =>
      socketsOf(kernel).find(({ sock }) => {
        const name = unixName(kernel, kernel.bind(unixSock).at(sock.address));
        return sock.state === state && name[0] === 0x2f;
      }) ?? assert.fail();
    const [listener, accepted] = [named(tcpState.listen), named(tcpState.established)];
    const unix = kernel.bind(unixSock).at(listener.sock.address);
    const patch = (at: bigint, bytes: Uint8Array) => ({ physical: kernel.memory.translate(at), bytes });
    const word = (at: bigint, value: bigint) => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64LE(value);
      return patch(at, bytes);
    };
    const mount = mountOf(kernel, unix.mnt).address;
    const inSandbox = word(mount + BigInt(kernel.bind(mountStruct).offsetOf('mnt_ns')), SANDBOX);
    const peerPid = listener.sock.address + BigInt(kernel.bind(sockStruct).offsetOf('sk_peer_pid'));

    const contextOf = (patched: Kernel, isSandboxed: boolean): CaptureContext => {
      const Context = isSandboxed ? Sandboxed : CaptureContext;
      const sandboxes = isSandboxed ? { unitOf: () => 'web.service' } : noSandboxes;
      const tasks = [{ pid: kinds.pid, task: process, filesId: 1 }];
      return new Context(patched, readClocks(patched), tasks, listTasks(patched), { sandboxes });
    };
    const capture = (context: CaptureContext, { open, socket, sock }: typeof listener): UnixSocket =>
      captureUnix(context, open, socket, context.kernel.bind(sockStruct).at(sock.address));

    test('in a sandbox, in a directory of others: the process that had it listen has it do so again', () => {
      const context = contextOf(openPatched(release, [inSandbox]), true);
      const { ownMake, listener: who, leadsTo } = capture(context, listener);
      assert.deepEqual([ownMake?.path, who, leadsTo], ['/tmp/listener', kinds.pid, undefined]);
      assert.deepEqual([...context.notes], []);
    });

    test('in a sandbox: what new clients are told of it otherwise is noted', () => {
      const other = findPid(kernel, kinds.tcp) ?? assert.fail();
      const context = contextOf(openPatched(release, [inSandbox, word(peerPid, other)]), true);
      assert.equal(capture(context, listener).listener, kinds.pid);
      assert.deepEqual(
        [...context.notes],
        [
          [
            kinds.pid,
            [
              `SO_PEERCRED of the unix socket /tmp/listener tells of process ${kinds.pid}, user 0, group 0, no longer of process ${kinds.tcp}, user 0, group 0`,
            ],
          ],
        ],
      );
    });

    test('in a sandbox: what is connected to one by its name, and not accepted yet, is refused', () => {
      const context = contextOf(openPatched(release, [inSandbox]), true);
      const problems = socketsOf(kernel).flatMap((one) => {
        try {
          capture(context, one);
          return [];
        } catch (error) {
          return [String(error)];
        }
      });
      assert.deepEqual(problems, [
        'FileRefusal: has a unix socket connected to /tmp/listener, which cannot be made in its sandbox: that is bound later',
      ]);
    });

    test('in a sandbox: what sends to one by its name is refused', () => {
      const Unix = kernel.bind(unixSock);
      const sender = socketsOf(kernel).find(({ sock }) => sock.sk_type === SOCK_DGRAM) ?? assert.fail();
      const receiver = Unix.at(Unix.at(sender.sock.address).peer);
      // As if that were no pair, but a receiver that is bound where the listener is.
      const member = (name: 'peer' | 'addr' | 'path.mnt' | 'path.dentry', value: bigint) =>
        word(receiver.address + BigInt(Unix.offsetOf(name)), value);
      const place = [
        inSandbox,
        member('addr', unix.addr),
        member('path.mnt', unix.mnt),
        member('path.dentry', unix.dentry),
      ];
      const paired = contextOf(openPatched(release, place), true);
      assert.notEqual(capture(paired, sender).peerInode, 0);
      const context = contextOf(openPatched(release, [...place, member('peer', 0n)]), true);
      assert.throws(() => capture(context, sender), /connected to \/tmp\/listener, which cannot be made/);
    });

    test('outside of sandboxes: an ACL on a disk is lost, and named', () => {
      const at = kernel.bind(dentryStruct).at(unix.dentry).d_inode;
      const Inode = kernel.bind(inodeStruct);
      const { dentry } = kernel.bind(unixSock).at(listener.sock.address);
      // As if its file system were that of the root directory, which is on a disk.
      const { d_inode: root } = kernel.bind(dentryStruct).at(mountOf(kernel, mount, 'mount').mnt_mountpoint);
      const onDisk = word(at + BigInt(Inode.offsetOf('i_sb')), Inode.at(root).i_sb);
      const withAcl = word(at + BigInt(Inode.offsetOf('i_acl')), dentry);
      const notesOf = (...patches: Parameters<typeof openPatched>[1][number][]): unknown[] => {
        const context = contextOf(openPatched(release, patches), false);
        capture(context, listener);
        return [...context.notes.values()];
      };
      assert.deepEqual(notesOf(onDisk), []);
      assert.deepEqual(notesOf(onDisk, withAcl), [
        ['the socket /tmp/listener has lost its ACL or other attributes'],
      ]);
    });

    test('outside of sandboxes: a file that was renamed is made by this program, of the socket that is bound alone', () => {
      const { name } = kernel.bind(unixAddress).at(unix.addr);
      const elsewhere = patch(name + 2n + 5n, Buffer.from('L'));
      const unhashed = word(unix.dentry + BigInt(kernel.bind(dentryStruct).offsetOf('d_hashPprev')), 0n);
      const whole = capture(contextOf(kernel, false), listener);
      assert.deepEqual([whole.leadsTo, whole.ownMake], [undefined, undefined]);
      const context = contextOf(openPatched(release, [elsewhere]), false);
      const { ownMake, name: bound, leadsTo } = capture(context, listener);
      assert.deepEqual(
        [ownMake?.path, String(Buffer.from(bound)), leadsTo],
        ['/tmp/listener', '/tmp/Listener', undefined],
      );
      // One that was accepted has the same name and file, and CRIU binds it to none.
      assert.equal(capture(context, accepted).leadsTo, undefined);
      // One that is deleted is bound, and its file deleted again.
      const deleted = capture(contextOf(openPatched(release, [elsewhere, unhashed]), false), listener);
      assert.deepEqual([deleted.deleted, deleted.leadsTo], [true, undefined]);
    });
  });
}
