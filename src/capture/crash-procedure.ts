import { type CapturedProcedure, parseCrashProcedure, recordFileName } from '../model/crash-procedure.ts';
import type { GroupFiles } from '../model/file.ts';
import type { ProcessGroup } from '../model/group.ts';
import type { Vma } from '../model/memory.ts';
import type { Process } from '../model/process.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { contentOf } from '../vmcore/stored-pages.ts';

/** What of a kernel is needed to find records. */
export type RecordSource = Pick<Kernel, 'symbolMaybe' | 'memory' | 'physical' | 'stored'>;

/** Bytes read of a record: its header and the start of its last incident. */
const readBytes = 512;

/**
 * No area of a 64-bit process has fewer bytes of XSAVE header and legacy region before it (SDM, volume 1,
 * 13.4).
 */
const firstComponentOffset = 576;

/**
 * Finds and checks the crash procedures of a group: memory files named `otherworld` among the processes'
 * areas.
 *
 * @returns one entry for each process that has a record, valid or not, in the order of the processes
 */
export function captureCrashProcedures(kernel: RecordSource, group: ProcessGroup): CapturedProcedure[] {
  const records = recordFileIds(group.files);
  return group.processes.flatMap((process) => {
    const areas =
      process.memory?.vmas.filter(({ fileId }) => fileId !== undefined && records.has(fileId)) ?? [];
    return areas.length === 0 ? [] : [captureRecord(kernel, process, areas)];
  });
}

function recordFileIds(files: GroupFiles): Set<number> {
  const inodes = new Set(
    files.memfds.filter(({ name }) => name === recordFileName).map(({ inodeId }) => inodeId),
  );
  const ids = files.files.flatMap((file) =>
    file.type === 'memfd' && inodes.has(file.inodeId) ? [file.id] : [],
  );
  return new Set(ids);
}

function captureRecord(kernel: RecordSource, process: Process, areas: readonly Vma[]): CapturedProcedure {
  const area = areas[0]!;
  const ignored = (reason: string): CapturedProcedure => ({ pid: process.pid, valid: false, reason });
  if (areas.length > 1) return ignored(`is one of ${areas.length} records; a process has one`);
  if (area.kind !== 'file-private') return ignored('is mapped shared; a record is mapped private');
  const [run] = area.runs;
  if (run === undefined || run.address !== area.start) return ignored('was never written');
  const bytes = contentOf(kernel).withView(run.physical, readBytes, (page) => Uint8Array.from(page));
  const vmas = process.memory?.vmas ?? [];
  const parsed = parseCrashProcedure(bytes, area.start, {
    pid: process.pid,
    vmas,
    sigactions: process.sigactions,
  });
  if (!parsed.valid) return ignored(parsed.reason);
  const { procedure } = parsed;
  if (procedure.delivery.kind === 'signal')
    return { pid: process.pid, ...parsed, header: bytes, xstateOffsets: [] };
  const offsets = xstateOffsets(kernel, process);
  if (typeof offsets === 'string') return ignored(offsets);
  return { pid: process.pid, ...parsed, header: bytes, xstateOffsets: offsets };
}

/**
 * Where the components of the first thread's extended state belong in an XSAVE area of standard format, by
 * component number: the processor's own answer (CPUID leaf 13), which the kernel keeps in `xstate_offsets`
 * (arch/x86/kernel/fpu/xstate.c).
 */
function xstateOffsets(kernel: RecordSource, process: Process): number[] | string {
  const table = kernel.symbolMaybe('xstate_offsets');
  const offsets: number[] = [];
  for (const { number } of process.threads[0]?.fpu.components ?? []) {
    if (table === undefined) return 'cannot be called: the kernel has no xstate_offsets';
    const offset = kernel.memory.u32(table + BigInt(4 * number));
    if (offset < firstComponentOffset || offset > 16384) {
      return `cannot be called: the kernel says that component ${number} of the vector state is at ${offset}`;
    }
    offsets[number] = offset;
  }
  return offsets;
}
