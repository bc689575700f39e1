/** Faults of one kind that are told one by one. */
const MOST_TOLD = 3;

/**
 * Compares what a server has of one connection's writes with the client's record. The writes were sent in
 * order over one connection, so what was applied is a beginning of them, whatever became of the connection.
 * @param applied numbers of the writes that the server has, in the order in which it has them
 * @param acknowledged the client has answers to the writes up to this one
 * @param sent the client has sent the writes up to this one
 * @returns what is wrong: lost, repeated, reordered or never sent; empty if nothing is
 */
export function faultsOfSequence(applied: readonly number[], acknowledged: number, sent: number): string[] {
  const seen = new Set<number>();
  const [repeated, reordered, unsent]: [string[], string[], string[]] = [[], [], []];
  let highest = 0;
  for (const n of applied) {
    if (seen.has(n)) repeated.push(`write ${n} was applied more than once`);
    else if (n > sent || n < 1) unsent.push(`write ${n} was applied, and ${sent} were sent`);
    else if (n < highest) reordered.push(`write ${n} was applied after write ${highest}`);
    seen.add(n);
    highest = Math.max(highest, n);
  }
  const lost: string[] = [];
  for (let n = 1; n <= Math.max(acknowledged, Math.min(highest, sent)); n++) {
    if (seen.has(n)) continue;
    const why = n <= acknowledged ? 'it was acknowledged' : `write ${highest} was applied`;
    lost.push(`write ${n} is lost, and ${why}`);
  }
  return [lost, repeated, reordered, unsent].flatMap(firstOf);
}

/** As `faultsOfSequence`, of a server that has a count only: each write adds one to it. */
export function faultsOfCount(count: number, acknowledged: number, sent: number): string[] {
  if (count < acknowledged)
    return [
      `${acknowledged - count} writes are lost: ${acknowledged} were acknowledged, the count is ${count}`,
    ];
  if (count > sent)
    return [`${count - sent} writes were applied more than once: ${sent} were sent, the count is ${count}`];
  return [];
}

/** The first of them, and how many more there are. */
export function firstOf(faults: readonly string[]): string[] {
  const more = faults.length - MOST_TOLD;
  return more <= 0 ? [...faults] : [...faults.slice(0, MOST_TOLD), `${more} more like that`];
}
