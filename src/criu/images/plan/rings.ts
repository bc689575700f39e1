import type { FileDescriptor } from '../../../model/file.ts';
import type { ProcessGroup } from '../../../model/group.ts';
import type { IoUring, RingPart } from '../../../model/io-uring.ts';
import type { Process } from '../../../model/process.ts';
import { PAGE_SIZE } from '../../../system/page.ts';
import { ringContent } from '../files/io-uring.ts';
import type { PlannedRing } from './restore-plan.ts';

function areasOf({ memory }: Process, id: number): PlannedRing['areas'] {
  return (memory?.vmas ?? []).flatMap(({ kind, fileId, ringPart, start, end, advice, offsetBytes }) =>
    kind === 'io-uring' && fileId === id && ringPart !== undefined
      ? [
          {
            start,
            bytes: end - start,
            offset: offsetBytes,
            part: ringPart satisfies RingPart,
            advice: [...advice],
          },
        ]
      : [],
  );
}

function plannedRing(process: Process, ring: IoUring, descriptors: readonly FileDescriptor[]): PlannedRing {
  const { id, setup, sqEntries, cqEntries, requests, completions, unread, issuer, offsets } = ring;
  return {
    pid: process.pid,
    descriptors: descriptors.map(({ fd, closeOnExec }) => ({ fd, closeOnExec })),
    ...{ setup, sqEntries, cqEntries, requests, completions, unread, offsets },
    ...(issuer === undefined ? {} : { issuer }),
    areas: areasOf(process, id),
    content: ringContent(ring),
    ringsBytes: ring.rings.pages * PAGE_SIZE,
    entriesBytes: ring.entries.pages * PAGE_SIZE,
  };
}

/** The rings of a group's processes, each with its descriptors; of a process by the first of them. */
export function ringsOf({ processes, files }: ProcessGroup): PlannedRing[] {
  const rings = files.files.filter((file) => file.type === 'io-uring');
  return processes.flatMap((process) => {
    const descriptors = files.tables.find(({ filesId }) => filesId === process.filesId)?.descriptors ?? [];
    const own = rings.flatMap((ring) => {
      const leading = descriptors.filter(({ fileId }) => fileId === ring.id);
      return leading.length > 0 ? [plannedRing(process, ring, leading)] : [];
    });
    const first = ({ descriptors: [one] }: PlannedRing): number => one?.fd ?? 0;
    return own.toSorted((a, b) => first(a) - first(b));
  });
}
