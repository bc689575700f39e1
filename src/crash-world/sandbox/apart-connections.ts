import { join } from 'node:path';
import * as z from 'zod';
import { RUN_DIRECTORY } from '../../config/paths.ts';
import { showEndpoint } from '../../linux/inet.ts';
import type { ProcessGroup } from '../../model/group.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { unmapped } from '../../system/ip-address.ts';
import type { TcpEnd } from '../../system/sockets.ts';
import { readStateFile, replaceFile } from '../../system/state-file.ts';
import { resetHalfOpen, TcpEndsNow } from '../../system/tcp-ask.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import type { TcpEnds } from '../../system/unanswered.ts';

const PATH = join(RUN_DIRECTORY, 'apart.json');

const tcpEnd = z
  .strictObject({ address: z.array(z.int().min(0).max(255)), port: z.int() })
  .transform(({ address, port }) => ({ address: Uint8Array.from(address), port }));

const apartSchema = z.array(
  z.strictObject({
    ...{ group: z.int(), pids: z.array(z.int()), own: tcpEnd, peer: tcpEnd, other: z.string() },
  }),
);

/** An end of a connection of which the other one comes back at another time. */
export interface ApartEnd extends TcpEnds {
  readonly group: number;
  /** Who has it. */
  readonly pids: readonly number[];
  /** Who has the other end, for people. */
  readonly other: string;
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
    return [{ group: id, pids: pids.map(({ pid }) => pid), own, peer, other }];
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

function isOtherEnd({ own, peer }: ApartEnd, other: ApartEnd): boolean {
  const isSame = (a: TcpEnd, b: TcpEnd): boolean =>
    a.port === b.port && Buffer.from(a.address).equals(b.address);
  return isSame(own, other.peer) && isSame(peer, other.own);
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
 * @param wanted groups whose ends are looked at, or whose other ends are
 * @param now the connections that there are; without it what is here counts as having its ends
 */
export function lonelyEnds(
  ends: readonly ApartEnd[],
  stateOf: (group: number) => GroupState,
  now?: { has(ends: TcpEnds): boolean },
): LonelyEnd[] {
  return ends.flatMap((end): LonelyEnd[] => {
    if (stateOf(end.group) !== 'here') return [];
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

/** Enters what their processes have lost. */
function noteLonely(ends: readonly LonelyEnd[], report: Pick<IncidentReport, 'processes'>): void {
  for (const { gone } of ends) {
    if (gone === undefined) continue;
    const note =
      `the connection to ${showEndpoint(gone.peer.address, gone.peer.port)} had ended before its other end, ` +
      `that of ${gone.other}, was back: it was closed, or its time was over`;
    for (const process of report.processes.filter(({ pid }) => gone.pids.includes(pid)))
      process.notes.push(note);
  }
  for (const { pids, peer, why } of ends) {
    const what = `the connection to ${showEndpoint(peer.address, peer.port)} is reset: ${why}`;
    for (const process of report.processes.filter(({ pid }) => pids.includes(pid))) {
      if (process.losses?.some((loss) => loss.what === what) === true) continue;
      process.losses = [...(process.losses ?? []), { kind: 'connections', what }];
      if (process.fate === 'whole') process.fate = 'with-losses';
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
    report.errors.push(...left.map((one) => `${nameOf(one)} cannot be reset: ${one.why}`));
    // The kernel's list of connections may lack one that is there, while others end.
    const now = new TcpEndsNow();
    const isWhole = (one: LonelyEnd): boolean => one.gone !== undefined && now.has(one) && now.has(one.gone);
    noteLonely(
      ends.filter((one) => !isWhole(one)),
      report,
    );
  } catch (error) {
    noteLonely(ends, report);
    report.errors.push(...ends.map((one) => `${nameOf(one)} cannot be reset: ${messageWithCauses(error)}`));
  }
}

function nameOf({ pids, own, peer }: ApartEnd): string {
  const [from, to] = [own, peer].map(({ address, port }) => showEndpoint(address, port));
  return `the connection ${from} to ${to} of PID ${pids.join(', ')}`;
}
