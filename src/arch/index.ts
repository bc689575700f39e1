import { machine } from 'node:os';
import type { Architecture } from './architecture.ts';
import { x86_64 } from './x86-64/index.ts';

export type * from './architecture.ts';
/** A second architecture makes these unions. */
export type {
  FpuState,
  GeneralRegisters,
  TlsSlot,
  UserRegisters,
  XstateComponent,
} from './x86-64/user-registers.ts';

/** The architectures whose kernels are read. */
export const architectures: readonly Architecture[] = [x86_64];

/** The architecture of this machine; throws an Error on one that is not supported. */
export function runningArchitecture(): Architecture {
  const found = architectureOfUname(machine());
  if (found === undefined)
    throw new Error(`${machine()} is not supported: ${architectures.map(({ name }) => name).join(', ')} is`);
  return found;
}

/** The architecture of an ELF file, by its `e_machine`. */
export function architectureOfElf(machine: number): Architecture | undefined {
  return architectures.find(({ elfMachine }) => elfMachine === machine);
}

/** The architecture of a kernel, by what `uname -m` says on it. */
export function architectureOfUname(machine: string): Architecture | undefined {
  return architectures.find(({ unameMachine }) => unameMachine === machine);
}
