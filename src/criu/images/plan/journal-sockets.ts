import type { GroupFiles } from '../../../model/file.ts';
import { O_NONBLOCK } from '../../../system/abi.ts';
import type { PlannedJournalSocket } from './restore-plan.ts';

/** The sockets of a group that lead to the journal. */
export function journalSocketsOf({ files }: GroupFiles): PlannedJournalSocket[] {
  return files.flatMap((file) => {
    if (file.type !== 'unix' || file.journal === undefined) return [];
    return [{ inode: file.inode, nonblocking: (file.flags & O_NONBLOCK) !== 0, ...file.journal }];
  });
}
