import type { NoteFormat } from '../arch/index.ts';

/** One CPU at the moment of the dump (NT_PRSTATUS). */
export interface CpuNote {
  /** PID of the task that the kernel put down for this CPU; 0 for idle and in QEMU's dumps of a running guest. */
  readonly pid: number;
  /** By the architecture's names. */
  readonly registers: Readonly<Record<string, bigint>>;
}

/** One ELF note; `description` is its content. */
export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly description: Buffer;
}

const NT_PRSTATUS = 1;

/** Splits a PT_NOTE segment; stops at the first note that does not fit (the kernel pads the segment with zeroes). */
export function parseNotes(segment: Buffer): ElfNote[] {
  const notes: ElfNote[] = [];
  let at = 0;
  while (at + 12 <= segment.length) {
    const nameBytes = segment.readUInt32LE(at);
    const descriptionBytes = segment.readUInt32LE(at + 4);
    const type = segment.readUInt32LE(at + 8);
    const description = at + 12 + Math.ceil(nameBytes / 4) * 4;
    if (nameBytes === 0 || description + descriptionBytes > segment.length) break;
    const name = segment.toString('latin1', at + 12, at + 12 + nameBytes).replace(/\0.*$/s, '');
    notes.push({ name, type, description: segment.subarray(description, description + descriptionBytes) });
    at = description + Math.ceil(descriptionBytes / 4) * 4;
  }
  return notes;
}

/** What the NT_PRSTATUS notes among a dump's notes say of its CPUs; one that is too short for the architecture is left out. */
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
