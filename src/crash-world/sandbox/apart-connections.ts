import { join } from 'node:path';
import * as z from 'zod';
import { RUN_DIRECTORY } from '../../config/paths.ts';
import { showEndpoint } from '../../linux/inet.ts';
import { sequenceAfter } from '../../linux/tcp.ts';
import type { ProcessGroup } from '../../model/group.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { unmapped } from '../../system/ip-address.ts';
import type { TcpEnd } from '../../system/sockets.ts';
import { readStateFile, replaceFile } from '../../system/state-file.ts';
import { hurry, resetHalfOpen, type SendingEnd, TcpEndsNow } from '../../system/tcp-ask.ts';
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
  return files.files.flatMap((file) => {
    if (file.type !== 'inet' || file.apart === undefined || file.connection === undefined) return [];
    const tables = files.tables.filter(({ descriptors }) =>
      descriptors.some((one) => one.fileId === file.id),
    );
    const pids = processes.filter((one) => tables.some(({ filesId }) => filesId === one.filesId));
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

function isSame(one: TcpEnds, other: TcpEnds): boolean {
  const isEqual = (a: TcpEnd, b: TcpEnd): boolean =>
    a.port === b.port && Buffer.from(a.address).equals(b.address);
  return isEqual(one.own, other.own) && isEqual(one.peer, other.peer);
}

function isOtherEnd({ own, peer }: TcpEnds, other: TcpEnds): boolean {
  return isSame({ own: peer, peer: own }, other);
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
  return ends.flatMap((end): LonelyEnd[] => {
    if (stateOf(end.group) !== 'here' || end.state === 'ended') return [];
    const other = ends.find((one) => isOtherEnd(end, one));
    const state = other === undefined ? 'gone' : stateOf(other.group);
    if (state === 'gone') return [{ ...end, why: `its other end, that of ${end.other}, did not come back` }];
    if (state === 'later' || other === undefined || now === undefined || now.has(other)) return [];
    const why = `its other end, that of ${end.other}, had ended before this one was back`;
    return [{ ...end, why, gone: other }];
  });
}

/** What a report says of a group. */
export function groupStates(report: Pick<IncidentReport, 'processes'>): (group: number) => GroupState {
  return (group) => {
    const outcomes = report.processes.filter((one) => one.group === group).map(({ outcome }) => outcome);
    if (outcomes.includes('restored')) return 'here';
    return outcomes.includes('pending') ? 'later' : 'gone';
  };
}

function enterLoss(pids: readonly number[], what: string, report: Pick<IncidentReport, 'processes'>): void {
  for (const process of report.processes.filter(({ pid }) => pids.includes(pid))) {
    if (process.losses?.some((loss) => loss.what === what) === true) continue;
    process.losses = [...(process.losses ?? []), { kind: 'connections', what }];
    if (process.fate === 'whole') process.fate = 'with-losses';
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
  for (const end of ends) {
    const { pids, peer, why, gone } = end;
    if (gone !== undefined) {
      // If its process closed it, it has lost nothing; nothing tells that from a time that was over.
      const what =
        `the connection to ${showEndpoint(gone.peer.address, gone.peer.port)} had ended before its other end, ` +
        `that of ${gone.other}, was back: it was closed, or its time was over`;
      enterLoss(gone.pids, what, report);
    }
    const to = `the connection to ${showEndpoint(peer.address, peer.port)}`;
    const problem = untold.get(end);
    if (problem === undefined) enterLoss(pids, `${to} is reset: ${why}`, report);
    else {
      enterLoss(pids, `${to} waits for nobody, and its process is not told: ${why}`, report);
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
    const late = this.#ends.filter(({ group }) => held.has(group));
    const first = this.#ends.filter(
      (one) =>
        one.state !== 'ended' &&
        stateOf(one.group) === 'here' &&
        late.some((other) => isOtherEnd(one, other)),
    );
    await this.#answer(first, stateOf, (end) => held.has(end.group));
  }

  /** Of ends that had not been answered in time. */
  async #lookAgain(stateOf: (group: number) => GroupState): Promise<void> {
    const again = this.#ends.filter(({ state }) => state === 'unanswered');
    const isOther = (end: ApartEnd): boolean => again.some((one) => isOtherEnd(end, one));
    if (again.length > 0) await this.#answer(again, stateOf, isOther);
  }

  /** Has ends answered that wait for it, and resets the other ends of those that have gone. */
  async #answer(
    waiting: readonly ApartEnd[],
    stateOf: (group: number) => GroupState,
    isWanted: (end: ApartEnd) => boolean,
  ): Promise<void> {
    try {
      const left = await hurry(waiting);
      const isLeft = (one: ApartEnd): boolean => left.some((other) => isSame(other, one));
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
    const isMarked = (one: ApartEnd): boolean =>
      one.state !== state && which.some((other) => isSame(one, other));
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
