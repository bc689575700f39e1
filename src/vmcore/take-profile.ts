import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { release } from 'node:os';
import {
  ELF_HEADER_BYTES,
  NT_GNU_BUILD_ID,
  PROGRAM_HEADER_BYTES,
  PT_NOTE,
  parseElfHeader,
  parseNotes,
  parseProgramHeaders,
} from '../system/elf.ts';
import { ProfileError } from './errors.ts';
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
export function runningVmcoreinfo(path = '/proc/kcore'): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return '';
  }
  try {
    const read = (offset: number, length: number): Buffer => {
      const bytes = Buffer.alloc(length);
      return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
    };
    const header = parseElfHeader(read(0, ELF_HEADER_BYTES));
    if (header === undefined) return '';
    const [first] = parseProgramHeaders(read(header.programHeadersOffset, PROGRAM_HEADER_BYTES));
    if (first?.type !== PT_NOTE) return '';
    const notes = read(first.offset, Math.min(first.fileBytes, 1 << 20));
    const note = parseNotes(notes).find(({ name }) => name === 'VMCOREINFO');
    return note === undefined ? '' : note.description.toString('latin1').replace(/\0.*$/s, '');
  } finally {
    closeSync(fd);
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
