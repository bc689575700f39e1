// The other ends of connections, in the fixtures: a process there has a connection to itself.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { fdSlots } from '../../../src/linux/fdtable.ts';
import { fileAt } from '../../../src/linux/file.ts';
import { inetSock } from '../../../src/linux/inet.ts';
import { socketStruct } from '../../../src/linux/net.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { fileKind } from '../../../src/linux/readers/file-kind.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import { sockStruct, tcpState } from '../../../src/linux/sock.ts';
import type { InetSocket } from '../../../src/model/socket.ts';
import type { Kernel } from '../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../../vmcore/fixtures.ts';

/** Physical address of a member of the first socket of a process that is connected. */
function memberOfConnected(kernel: Kernel, pid: number, member: 'destinationPort'): number {
  const { files } = taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n);
  for (const { file } of fdSlots(kernel, files)) {
    const open = file === 0n ? undefined : fileAt(kernel, file);
    if (open === undefined || fileKind(kernel, open.f_op) !== 'socket') continue;
    const { sk } = kernel.bind(socketStruct).at(open.private_data);
    if (kernel.bind(sockStruct).at(sk).state !== tcpState.established) continue;
    return kernel.memory.translate(sk + BigInt(kernel.bind(inetSock).offsetOf(member)));
  }
  assert.fail(`process ${pid} has no connection`);
}

for (const release of releases) {
  suite(`the other end of a connection of ${release}`, () => {
    const { kinds } = truthOf(release);
    const captured = (kernel: Kernel): { connections: InetSocket[]; notes: readonly string[] } => {
      const { groups } = captureProcesses(kernel, { roots: [kinds.tcp], includeDescendants: false });
      const [group = assert.fail('it is refused')] = groups;
      const connections = group.files.files
        .filter((file) => file.type === 'inet')
        .filter(({ connection }) => connection !== undefined);
      return { connections, notes: group.processes.flatMap(({ findings }) => findings.notes) };
    };
    const isAsked = ({ lateOptions }: InetSocket): boolean =>
      lateOptions.some(({ name }) => name === 'SO_KEEPALIVE');

    test('is there if a process has it that comes back', () => {
      const { connections, notes } = captured(openFixture(release));
      assert.deepEqual(connections.map(isAsked), [false, false]);
      assert.ok(notes.every((note) => !note.includes('is reset')));
    });

    test('is gone if no process has it: the kernel asks, and hears of it', () => {
      const physical = memberOfConnected(openFixture(release), kinds.tcp, 'destinationPort');
      const { connections, notes } = captured(
        openPatched(release, [{ physical, bytes: Buffer.from([0x1b, 0x59]) }]),
      );
      assert.deepEqual(connections.map(isAsked), [true, true]);
      assert.ok(
        notes.includes('the connection to 127.0.0.1:7001 is reset: no process had its other end'),
        `${notes}`,
      );
    });
  });
}
