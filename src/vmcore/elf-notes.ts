import type { NoteFormat } from '../arch/index.ts';
import type { ElfNote } from '../system/elf.ts';

/** One CPU at the moment of the dump (NT_PRSTATUS). */
export interface CpuNote {
  /**
   * PID of the task that the kernel put down for this CPU; 0 for idle and in QEMU's dumps of a running guest.
   */
  readonly pid: number;
  /** By the architecture's names. */
  readonly registers: Readonly<Record<string, bigint>>;
}

const NT_PRSTATUS = 1;

/**
 * What the NT_PRSTATUS notes among a dump's notes say of its CPUs; one that is too short for the architecture
 * is left out.
 */
export function cpuNotesOf(notes: readonly ElfNote[], format: NoteFormat): CpuNote[] {
  return notes
    .filter(({ name, type }) => name === 'CORE' && type === NT_PRSTATUS)
    .map(({ description }) => parsePrstatus(description, format))
    .filter((note) => note !== undefined);
}

function parsePrstatus(description: Buffer, { pid, registers, names }: NoteFormat): CpuNote | undefined {
  if (description.length < registers + names.length * 8) return undefined;
  const entries = names.map((name, i) => [name, description.readBigUInt64LE(registers + i * 8)] as const);
  return { pid: description.readInt32LE(pid), registers: Object.fromEntries(entries) };
}
