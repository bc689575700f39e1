import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { release } from 'node:os';
import { parseNotes } from './elf-notes.ts';
import { ProfileError } from './errors.ts';
import type { TakenProfile } from './profile.ts';
import { parseProcKallsyms } from './profile-symbols.ts';

const NT_GNU_BUILD_ID = 3;
const PT_NOTE = 4;
const ELF_HEADER = 64;
const PROGRAM_HEADER = 56;

/** The running kernel's GNU build id, hexadecimal, from /sys/kernel/notes; throws a ProfileError if it has none. */
export function runningBuildId(): string {
  const note = parseNotes(readFileSync('/sys/kernel/notes')).find(
    ({ name, type }) => name === 'GNU' && type === NT_GNU_BUILD_ID,
  );
  if (note === undefined) throw new ProfileError('the kernel has no build id in /sys/kernel/notes');
  return note.description.toString('hex');
}

/**
 * VMCOREINFO of the running kernel: /proc/kcore carries it as a note, as a vmcore does. Empty where the kernel has no
 * /proc/kcore or is locked down; a dump has its own.
 */
function runningVmcoreinfo(): string {
  let fd: number;
  try {
    fd = openSync('/proc/kcore', 'r');
  } catch {
    return '';
  }
  try {
    const header = Buffer.alloc(ELF_HEADER + PROGRAM_HEADER);
    if (readSync(fd, header, 0, header.length, 0) < header.length) return '';
    const at = Number(header.readBigUInt64LE(32));
    const first = Buffer.alloc(PROGRAM_HEADER);
    if (readSync(fd, first, 0, first.length, at) < first.length || first.readUInt32LE(0) !== PT_NOTE)
      return '';
    const notes = Buffer.alloc(Math.min(Number(first.readBigUInt64LE(32)), 1 << 20));
    const length = readSync(fd, notes, 0, notes.length, Number(first.readBigUInt64LE(8)));
    const note = parseNotes(notes.subarray(0, length)).find(({ name }) => name === 'VMCOREINFO');
    return note === undefined ? '' : note.description.toString('latin1').replace(/\0.*$/s, '');
  } finally {
    closeSync(fd);
  }
}

/**
 * Takes the running kernel's profile: symbols, types, build id. Needs root; a few hundred milliseconds. Throws a
 * ProfileError if the kernel hides its symbols' addresses or has no BTF (CONFIG_DEBUG_INFO_BTF).
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
    symbols: parseProcKallsyms(readFileSync('/proc/kallsyms', 'latin1')),
  };
}
