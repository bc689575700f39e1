import { fdSlots } from '../../../../../src/linux/fdtable.ts';
import { fileAt } from '../../../../../src/linux/file.ts';
import { socketStruct } from '../../../../../src/linux/net.ts';
import { findTaskByPid } from '../../../../../src/linux/pid.ts';
import { fileKind } from '../../../../../src/linux/readers/file-kind.ts';
import { taskAt } from '../../../../../src/linux/sched.ts';
import { sockStruct, tcpState } from '../../../../../src/linux/sock.ts';
import type { Kernel } from '../../../../../src/vmcore/kernel.ts';

/** The sockets of a process that are in one state of TCP: connected ones, if not said otherwise. */
export function connectedOf(kernel: Kernel, pid: number, state: number = tcpState.established): bigint[] {
  const { files } = taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n);
  return fdSlots(kernel, files).flatMap(({ file }) => {
    const open = file === 0n ? undefined : fileAt(kernel, file);
    if (open === undefined || fileKind(kernel, open.f_op) !== 'socket') return [];
    const { sk } = kernel.bind(socketStruct).at(open.private_data);
    if (kernel.bind(sockStruct).at(sk).state !== state) return [];
    return [sk];
  });
}
