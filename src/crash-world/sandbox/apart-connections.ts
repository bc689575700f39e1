import { join } from 'node:path';
import * as z from 'zod';
import { RUN_DIRECTORY } from '../../config/paths.ts';
import { showEndpoint } from '../../linux/inet.ts';
import { sequenceAfter } from '../../linux/tcp.ts';
import type { ProcessGroup } from '../../model/group.ts';
import type { IncidentReport, ProcessReport } from '../../report/schema.ts';
import { unmapped } from '../../system/ip-address.ts';
import type { TcpEnd } from '../../system/sockets.ts';
import { readStateFile, replaceFile } from '../../system/state-file.ts';
import {
  endKey,
  hurry,
  otherEndKey,
  resetHalfOpen,
  type SendingEnd,
  TcpEndsNow,
} from '../../system/tcp-ask.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import type { TcpEnds } from '../../system/unanswered.ts';

const PATH = join(RUN_DIRECTORY, 'apart.json');

const tcpEnd = z
  .strictObject({ address: z.array(z.int().min(0).max(255)), port: z.int() })
  .transform(({ address, port }) => ({ address: Uint8Array.from(address), port }));

const apartSchema = z.array(
  z.strictObject({
    ...{ group: z.int(), pids: z.array(z.int()), own: tcpEnd, peer: tcpEnd, other: z.string() },
    ...{ unconfirmed: z.int(), state: z.enum(['ended', 'unanswered']).optional() },
  }),
);

/** An end of a connection of which the other one comes back at another time. */
export interface ApartEnd extends SendingEnd {
  readonly group: number;
  /** Who has it. */
  readonly pids: readonly number[];
  /** Who has the other end, for people. */
  readonly other: string;
  /**
   * `ended`: it was alone, and all has been done about that. `unanswered`: the other end is there, and has
   * not answered it yet.
   */
  readonly state?: 'ended' | 'unanswered' | undefined;
}

/** Those of a group. */
export function apartEndsOf({ id, files, processes }: ProcessGroup): ApartEnd[] {
  const tablesOf = Map.groupBy(
    files.tables.flatMap(({ filesId, descriptors }) =>
      descriptors.map(({ fileId }) => ({ fileId, filesId })),
    ),
    ({ fileId }) => fileId,
  );
  return files.files.flatMap((file) => {
    if (file.type !== 'inet' || file.apart === undefined || file.connection === undefined) return [];
    const tables = new Set(tablesOf.get(file.id)?.map(({ filesId }) => filesId));
    const pids = processes.filter(({ filesId }) => tables.has(filesId));
    const own = { address: unmapped(file.sourceAddress), port: file.sourcePort };
    const peer = { address: unmapped(file.destinationAddress), port: file.destinationPort };
    const other = `PID ${file.apart.pid} (${file.apart.comm})`;
    const { writtenTo, unacknowledged } = file.connection;
    const unconfirmed = sequenceAfter(writtenTo, -unacknowledged.bytes);
    return [{ group: id, pids: pids.map(({ pid }) => pid), own, peer, other, unconfirmed }];
  });
}

/** Leaves the ends of all groups for whoever has to know of them later. */
export function writeApartEnds(ends: readonly ApartEnd[], path: string = PATH): void {
  const plain = ({ address, port }: TcpEnd) => ({ address: [...address], port });
  const all = ends.map(({ own, peer, ...rest }) => ({ ...rest, own: plain(own), peer: plain(peer) }));
  replaceFile(path, JSON.stringify(all));
}

/** None if none were written. What cannot be read is an error of the report. */
export function readApartEnds(report: Pick<IncidentReport, 'errors'>, path: string = PATH): ApartEnd[] {
  try {
    const text = readStateFile(path);
    return text === undefined ? [] : apartSchema.parse(JSON.parse(text));
  } catch (error) {
    report.errors.push(`${path} cannot be read: ${messageWithCauses(error)}`);
    return [];
  }
}

/** `here`: its processes run, or are held; `later`: it is not decided yet. */
export type GroupState = 'here' | 'later' | 'gone';

/** An end that is alone, and why. */
export interface LonelyEnd extends ApartEnd {
  readonly why: string;
  /** The other one, if it was there and has gone. */
  readonly gone?: ApartEnd;
}

/**
 * The ends that are here and whose other end is not, and will not be.
 * @param ends those of all groups
 * @param stateOf what has become of a group
 * @param now the connections that there are; without it the other end of a group that is here counts as there
 */
export function lonelyEnds(
  ends: readonly ApartEnd[],
  stateOf: (group: number) => GroupState,
  now?: { has(ends: TcpEnds): boolean },
): LonelyEnd[] {
  const byKey = new Map(ends.map((one) => [endKey(one), one]));
  return ends.flatMap((end): LonelyEnd[] => {
    if (stateOf(end.group) !== 'here' || end.state === 'ended') return [];
    const other = byKey.get(otherEndKey(end));
    const state = other === undefined ? 'gone' : stateOf(other.group);
    if (state === 'gone') return [{ ...end, why: `its other end, that of ${end.other}, did not come back` }];
    if (state === 'later' || other === undefined || now === undefined || now.has(other)) return [];
    const why = `its other end, that of ${end.other}, had ended before this one was back`;
    return [{ ...end, why, gone: other }];
  });
}

/** What a report says of a group. */
export function groupStates(report: Pick<IncidentReport, 'processes'>): (group: number) => GroupState {
  const byGroup = Map.groupBy(report.processes, ({ group }) => group);
  return (group) => {
    const members = byGroup.get(group) ?? [];
    if (members.some(({ outcome }) => outcome === 'restored')) return 'here';
    return members.some(({ outcome }) => outcome === 'pending') ? 'later' : 'gone';
  };
}

/** Enters what processes have lost, each loss once. */
class Losses {
  readonly #byPid: ReadonlyMap<number, ProcessReport[]>;
  /** The losses that each has already. */
  readonly #known = new Map<ProcessReport, Set<string>>();

  constructor({ processes }: Pick<IncidentReport, 'processes'>) {
    this.#byPid = Map.groupBy(processes, ({ pid }) => pid);
  }

  enter(pids: readonly number[], what: string): void {
    for (const process of pids.flatMap((pid) => this.#byPid.get(pid) ?? [])) {
      const known = this.#known.get(process) ?? new Set(process.losses?.map((loss) => loss.what));
      this.#known.set(process, known);
      if (known.has(what)) continue;
      known.add(what);
      process.losses ??= [];
      process.losses.push({ kind: 'connections', what });
      if (process.fate === 'whole') process.fate = 'with-losses';
    }
  }
}

/**
 * Enters what their processes have lost.
 * @param untold of those that have not heard of it, why not
 */
function noteLonely(
  ends: readonly LonelyEnd[],
  untold: ReadonlyMap<LonelyEnd, string>,
  report: Pick<IncidentReport, 'processes' | 'errors'>,
): void {
  const losses = new Losses(report);
  for (const end of ends) {
    const { pids, peer, why, gone } = end;
    if (gone !== undefined) {
      // If its process closed it, it has lost nothing; nothing tells that from a time that was over.
      const what =
        `the connection to ${showEndpoint(gone.peer.address, gone.peer.port)} had ended before its other end, ` +
        `that of ${gone.other}, was back: it was closed, or its time was over`;
      losses.enter(gone.pids, what);
    }
    const to = `the connection to ${showEndpoint(peer.address, peer.port)}`;
    const problem = untold.get(end);
    if (problem === undefined) losses.enter(pids, `${to} is reset: ${why}`);
    else {
      losses.enter(pids, `${to} waits for nobody, and its process is not told: ${why}`);
      report.errors.push(`${nameOf(end)} cannot be reset: ${why}: ${problem}`);
    }
  }
}

/**
 * Has ends that are alone hear of it, as of a peer that has crashed, and enters that. Nothing may leave them
 * unanswered any more. Nothing is thrown: what goes wrong is an error of the report.
 */
export async function endLonely(
  ends: readonly LonelyEnd[],
  report: Pick<IncidentReport, 'processes' | 'errors'>,
): Promise<void> {
  if (ends.length === 0) return;
  try {
    const left = await resetHalfOpen(ends);
    // The kernel's list of connections may lack one that is there, while others end.
    const now = new TcpEndsNow();
    const isWhole = (one: LonelyEnd): boolean => one.gone !== undefined && now.has(one) && now.has(one.gone);
    noteLonely(
      ends.filter((one) => !isWhole(one)),
      new Map(left.map(({ end, problem }) => [end, problem])),
      report,
    );
  } catch (error) {
    noteLonely(ends, new Map(ends.map((one) => [one, messageWithCauses(error)])), report);
  }
}

/**
 * The ends of all groups, while one group after the other comes back or does not. Of each that is alone it is
 * told once. Nothing is thrown: what goes wrong is an error of the report.
 */
export class ApartConnections {
  #ends: readonly ApartEnd[];
  readonly #report: Pick<IncidentReport, 'processes' | 'errors'>;
  readonly #path: string;

  /** @param path where they are left for whoever comes after this program */
  constructor(
    ends: readonly ApartEnd[],
    report: Pick<IncidentReport, 'processes' | 'errors'>,
    path: string = PATH,
  ) {
    this.#ends = ends;
    this.#report = report;
    this.#path = path;
  }

  /** When it has been decided what becomes of a group. */
  async decided(): Promise<void> {
    const stateOf = groupStates(this.#report);
    await this.#end(lonelyEnds(this.#ends, stateOf));
    await this.#lookAgain(stateOf);
  }

  /** The same when nobody looks again. */
  async concluded(): Promise<void> {
    await this.decided();
    for (const end of this.#ends.filter(({ state }) => state === 'unanswered'))
      this.#report.errors.push(
        `${nameOf(end)} has not been answered by ${end.other}, which is back: it sends the same again and ` +
          'again; if its time is over before an answer comes, its other end is not told',
      );
  }

  /**
   * Before groups run that are made, and held: connections are reset of which the other end has gone
   * meanwhile, as its process has ended or closed it, or its time was over. Those that wait for an answer
   * get it now.
   */
  async beforeRunning(held: ReadonlySet<number>): Promise<void> {
    if (!this.#ends.some(({ group }) => held.has(group))) return;
    const known = groupStates(this.#report);
    const stateOf = (group: number): GroupState => (held.has(group) ? 'here' : known(group));
    const others = new Set(this.#ends.filter(({ group }) => held.has(group)).map(otherEndKey));
    const first = this.#ends.filter(
      (one) => one.state !== 'ended' && stateOf(one.group) === 'here' && others.has(endKey(one)),
    );
    await this.#answer(first, stateOf, (end) => held.has(end.group));
  }

  /** Of ends that had not been answered in time. */
  async #lookAgain(stateOf: (group: number) => GroupState): Promise<void> {
    const again = this.#ends.filter(({ state }) => state === 'unanswered');
    const others = new Set(again.map(otherEndKey));
    if (again.length > 0) await this.#answer(again, stateOf, (end) => others.has(endKey(end)));
  }

  /** Has ends answered that wait for it, and resets the other ends of those that have gone. */
  async #answer(
    waiting: readonly ApartEnd[],
    stateOf: (group: number) => GroupState,
    isWanted: (end: ApartEnd) => boolean,
  ): Promise<void> {
    try {
      const left = new Set(await hurry(waiting));
      const isLeft = (one: ApartEnd): boolean => left.has(one);
      this.#mark(waiting.filter(isLeft), 'unanswered');
      this.#mark(
        waiting.filter((one) => !isLeft(one)),
        undefined,
      );
      await this.#end(lonelyEnds(this.#ends, stateOf, new TcpEndsNow()).filter(isWanted));
    } catch (error) {
      const names = waiting.map(nameOf).join('; ');
      this.#report.errors.push(
        `nothing tells whether these are there: ${names}: ${messageWithCauses(error)}`,
      );
    }
  }

  async #end(lonely: readonly LonelyEnd[]): Promise<void> {
    if (lonely.length === 0) return;
    await endLonely(lonely, this.#report);
    this.#mark(lonely, 'ended');
    // The other one is nobody's any more.
    this.#mark(
      lonely.flatMap(({ gone }) => (gone === undefined ? [] : [gone])),
      'ended',
    );
  }

  #mark(which: readonly ApartEnd[], state: ApartEnd['state']): void {
    const keys = new Set(which.map(endKey));
    const isMarked = (one: ApartEnd): boolean => one.state !== state && keys.has(endKey(one));
    if (!this.#ends.some(isMarked)) return;
    this.#ends = this.#ends.map((one) => (isMarked(one) ? { ...one, state } : one));
    try {
      writeApartEnds(this.#ends, this.#path);
    } catch (error) {
      this.#report.errors.push(`${this.#path} cannot be written: ${messageWithCauses(error)}`);
    }
  }
}

function nameOf({ pids, own, peer }: ApartEnd): string {
  const [from, to] = [own, peer].map(({ address, port }) => showEndpoint(address, port));
  return `the connection ${from} to ${to} of PID ${pids.join(', ')}`;
}
