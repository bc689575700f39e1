import { runningArchitecture } from '../../../arch/index.ts';
import type { ProcessGroup } from '../../../model/group.ts';
import type { AddressSpace } from '../../../model/memory.ts';
import type { Process } from '../../../model/process.ts';
import type { MemoryKeysPlan } from './restore-plan.ts';

function pkruOf({ pid, threads }: Process): number {
  const fpu = threads.find(({ tid }) => tid === pid)?.fpu;
  return fpu === undefined ? 0 : runningArchitecture().programStart.keyRights(fpu);
}

function areasOf({ vmas }: AddressSpace): MemoryKeysPlan['areas'] {
  return vmas.flatMap(({ start, end, prot, protectionKey: key = 0 }) =>
    key === 0 ? [] : [{ start, bytes: end - start, prot, key }],
  );
}

/** Which keys a group's processes have to allocate again, and to put where. */
export function memoryKeysOf({ processes }: ProcessGroup): MemoryKeysPlan[] {
  return processes.flatMap((process) => {
    const { pid, memory } = process;
    if (memory === undefined || memory.protectionKeys.length === 0) return [];
    return [{ pid, keys: [...memory.protectionKeys], pkru: pkruOf(process), areas: areasOf(memory) }];
  });
}
