import { architectureOfElf } from '../arch/index.ts';
import { lockdownMode } from '../system/lockdown.ts';
import { codeOf } from '../system/thrown.ts';
import type { DumpSource } from './elf.ts';
import { FormatError } from './errors.ts';
import { Kcore, PROC_KCORE } from './kcore.ts';
import { KcoreMemory } from './kcore-memory.ts';
import { openProblem } from './mapping.ts';

/** Why the running kernel's memory is not shown, in words. */
function kcoreProblem(error: unknown): string {
  const code = codeOf(error);
  if (code === 'ENOENT') return 'this kernel does not show its memory: it has no such file';
  if (code !== 'EPERM') return `cannot be opened: ${openProblem(error)}`;
  return lockdownMode() === 'confidentiality'
    ? 'the kernel is locked down (confidentiality) and shows its memory to nobody'
    : 'the kernel shows its memory to those only who have CAP_SYS_RAWIO, as root has outside of containers';
}

/**
 * Opens the running kernel's memory (/proc/kcore) as a dump is opened. Throws a FormatError with a sentence
 * if the kernel does not show it.
 */
export function openKcore(path: string = PROC_KCORE): DumpSource {
  const kcore = open(path);
  try {
    const architecture = architectureOfElf(kcore.machine);
    if (architecture === undefined)
      throw new FormatError(kcore.path, 'is of an architecture that is not read');
    // Without it the kernel is looked for in all memory.
    if (kcore.vmcoreinfo === undefined)
      throw new FormatError(
        kcore.path,
        'the kernel does not say where it is (VMCOREINFO, which Linux has here since 4.19)',
      );
    return {
      architecture,
      physical: new KcoreMemory(kcore),
      // There is one of a CPU, empty.
      cpuNotes: [],
      notes: kcore.notes,
      vmcoreinfo: kcore.vmcoreinfo,
      warnings: [],
      isAlive: true,
    };
  } catch (error) {
    kcore.close();
    throw error;
  }
}

function open(path: string): Kcore {
  try {
    return new Kcore(path);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    throw new FormatError(path, kcoreProblem(error));
  }
}
