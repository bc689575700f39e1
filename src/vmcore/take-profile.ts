import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { NT_GNU_BUILD_ID, parseNotes } from '../system/elf.ts';
import { ProfileError } from './errors.ts';
import { Kcore } from './kcore.ts';
import type { TakenProfile } from './profile.ts';
import { parseProcKallsyms } from './profile-symbols.ts';

/**
 * The running kernel's GNU build id, hexadecimal, from /sys/kernel/notes; throws a ProfileError if it has
 * none.
 */
function runningBuildId(): string {
  const note = parseNotes(readFileSync('/sys/kernel/notes')).find(
    ({ name, type }) => name === 'GNU' && type === NT_GNU_BUILD_ID,
  );
  if (note === undefined) throw new ProfileError('the kernel has no build id in /sys/kernel/notes');
  return note.description.toString('hex');
}

/**
 * VMCOREINFO of the running kernel: /proc/kcore carries it as a note, as a vmcore does. Empty where the
 * kernel has no /proc/kcore or is locked down; a dump has its own.
 */
export function runningVmcoreinfo(path?: string): string {
  try {
    using kcore = new Kcore(path);
    return kcore.vmcoreinfo ?? '';
  } catch {
    return '';
  }
}

/**
 * Takes the running kernel's profile: symbols, types, build id. Needs root; a few hundred milliseconds.
 * Throws a ProfileError if the kernel hides its symbols' addresses or has no BTF (CONFIG_DEBUG_INFO_BTF).
 */
export function takeProfile(): TakenProfile {
  let btf: Buffer;
  try {
    btf = readFileSync('/sys/kernel/btf/vmlinux');
  } catch {
    throw new ProfileError(
      `kernel ${release()} has no /sys/kernel/btf/vmlinux: it was built without CONFIG_DEBUG_INFO_BTF`,
    );
  }
  return {
    release: release(),
    buildId: runningBuildId(),
    vmcoreinfo: runningVmcoreinfo(),
    btf,
    symbols: parseProcKallsyms(readFileSync('/proc/kallsyms')),
  };
}
