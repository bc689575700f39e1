import { markdownTable } from './document.ts';
import type { Recovery } from './recovery.ts';
import { spread } from './timing.ts';

/** What kdump reserves on a machine of 2 to 64 GB as Red Hat ships it. */
const KDUMP_MIB = 256;

/** Markdown of the crash world's memory in the incidents of a recovery measurement. */
export function memorySection({ rounds, guest, neededBytes }: Recovery): string {
  const row = (what: string, bytes: readonly number[]): string[] => {
    const [middle, least, most] = spread(bytes.map((value) => value / 2 ** 20));
    return [what, ...[middle, least, most].map((value) => value.toFixed(0)), (middle / KDUMP_MIB).toFixed(2)];
  };
  const memories = rounds.map(({ report }) => report.memory);
  return [
    `The same guest of ${guest.memoryMiB} MiB and the same ${rounds.length} panics as under "From panic to running". "Used" is the most that was in use while the crash`,
    `world had nothing but its reserved memory, the crash kernel's own included. The ratio is to the ${KDUMP_MIB} MiB that kdump reserves.`,
    '',
    markdownTable(
      ['', 'median MiB', 'min MiB', 'max MiB', `to ${KDUMP_MIB} MiB`],
      [
        row(
          'reserved (`crashkernel=`)',
          memories.map(({ reservedBytes }) => reservedBytes),
        ),
        row('needed, as `otherworld status` estimates', [neededBytes]),
        row(
          'used at the peak',
          memories.map(({ peakUsedBytes }) => peakUsedBytes),
        ),
        row(
          'taken back of the old memory',
          memories.map(({ reclaimedBytes }) => reclaimedBytes),
        ),
      ],
    ),
  ].join('\n');
}
