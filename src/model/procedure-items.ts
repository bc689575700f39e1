import type { UnexpectedKind, UnexpectedLoss } from './loss.ts';
import { itemCapacity, type ProcedureItem } from './procedure-incident.ts';
import type { Findings } from './verdict.ts';

/** More of one kind than so many are one item, where a program asks for none of them by name. */
const mostOfAKind = Math.floor(itemCapacity / 4);

function lost({ fd, tid, what }: Pick<UnexpectedLoss, 'fd' | 'tid' | 'what'>): ProcedureItem {
  return { kind: 'lost', fd, tid, what };
}

/** Those of a kind, or one item for all of them. */
function folded(losses: readonly UnexpectedLoss[], kind: UnexpectedKind, several: string): ProcedureItem[] {
  const own = losses.filter((loss) => loss.kind === kind);
  if (own.length <= mostOfAKind) return own.map(lost);
  return [lost({ what: `${own.length} ${several}; the first: ${own[0]?.what}` })];
}

/**
 * What a procedure is told of a process. A record has room for so many items: descriptors come first, which a
 * program asks for by number; then all else that is lost, of which many threads or areas are one item; then
 * what is in doubt.
 */
export function procedureItems({
  unexpected,
  losses,
  inDoubt,
}: Pick<Findings, 'unexpected' | 'losses' | 'inDoubt'>): ProcedureItem[] {
  const ofKind = (kind: UnexpectedKind) => unexpected.filter((loss) => loss.kind === kind).map(lost);
  return [
    ...ofKind('descriptors'),
    ...losses.map(({ what }) => lost({ what })),
    ...ofKind('execution'),
    ...folded(unexpected, 'memory', 'memory areas are gone'),
    ...folded(unexpected, 'threads', 'threads and timers are gone'),
    ...inDoubt.map(
      ({ tid, fd, syscall, reason }): ProcedureItem => ({
        ...{ kind: 'in-doubt', tid, fd },
        what: `${syscall}: ${reason}`,
      }),
    ),
  ];
}
