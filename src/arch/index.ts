import type { Architecture } from './architecture.ts';
import { x86_64 } from './x86-64/index.ts';

export type * from './architecture.ts';

/** The architectures whose kernels are read. */
export const architectures: readonly Architecture[] = [x86_64];

/** The architecture of an ELF file, by its `e_machine`. */
export function architectureOfElf(machine: number): Architecture | undefined {
  return architectures.find(({ elfMachine }) => elfMachine === machine);
}

/** The architecture of a kernel, by what `uname -m` says on it. */
export function architectureOfUname(machine: string): Architecture | undefined {
  return architectures.find(({ unameMachine }) => unameMachine === machine);
}
