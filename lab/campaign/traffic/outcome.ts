import type { ProcessReport } from '../../../src/report/schema.ts';
import { isRefused, reasonsOf } from '../panics.ts';
import type { ServerName, Talk } from './talks.ts';

/**
 * What became of a connection:
 * - `kept`: it went on;
 * - `reset`: its server came back without it, and the report names it;
 * - `refused`: its server did not come back, and the report says why;
 * - `quiet`: it was not reset, but who would have made it go on was;
 * - `lost`: it did not go on, and the report does not say that; or its server failed to come back, or may not
 *   lose a connection.
 */
export type Fate = 'kept' | 'reset' | 'refused' | 'quiet' | 'lost';

export const fates: readonly Fate[] = ['kept', 'reset', 'refused', 'quiet', 'lost'];

/** The record of one connection. */
export interface TalkOutcome {
  readonly server: ServerName;
  readonly name: string;
  readonly fate: Fate;
  /** Why it was reset or refused, by the report. */
  readonly why: readonly string[];
  readonly asked: number;
  readonly answered: number;
  readonly bytesSent: number;
  readonly bytesGot: number;
  /** Longest time without a byte from the server. */
  readonly silenceSeconds: number;
  /** What is wrong: none of these may be. */
  readonly faults: readonly string[];
}

/** What a report says of a server and one connection to it. */
export interface Named {
  readonly fate: Fate;
  readonly why: readonly string[];
}

/** Address of the host as guests see it, in QEMU's user networking: that of all clients outside. */
const HOST = '10.0.2.2';

/**
 * What a report says of a connection to a client outside, by the port of its other end.
 * @param processes of its server
 * @param mayLose whether they may lose such a connection: if not, there is no excuse for its reset
 */
export function namedFate(processes: readonly ProcessReport[], port: number, mayLose: boolean): Named {
  if (processes.length === 0) return { fate: 'lost', why: ['the report does not name its server'] };
  const failed = processes.filter(({ outcome }) => outcome === 'failed' || outcome === 'pending');
  if (failed.length > 0) return { fate: 'lost', why: failed.flatMap(({ reasons }) => reasons) };
  if (processes.some(isRefused)) {
    const why = reasonsOf(processes);
    return why.length > 0
      ? { fate: 'refused', why }
      : { fate: 'lost', why: ['its server was refused, and no reason is named'] };
  }
  const ended = processes.flatMap(({ pid, ended }) =>
    ended === undefined ? [] : [`process ${pid} has ended: ${ended}`],
  );
  if (ended.length > 0) return { fate: 'lost', why: ended };
  const losses = processes.flatMap(({ losses = [] }) => losses.map(({ what }) => what));
  // One within the guest may have the same port.
  const why = losses.filter((what) => what.startsWith(`the connection to ${HOST}:${port} is reset`));
  if (why.length === 0) return { fate: 'kept', why: [] };
  return mayLose
    ? { fate: 'reset', why: [...new Set(why)] }
    : { fate: 'lost', why: ['its server may not lose a connection', ...new Set(why)] };
}

/** The record of a connection, when all is known. */
export function outcomeOf(
  { server, conversation }: Talk,
  { fate, why }: Named,
  faults: readonly string[],
): TalkOutcome {
  const { name, wire, asked, answered } = conversation;
  return {
    ...{ server, name, fate, why, asked, answered },
    bytesSent: wire.sent,
    bytesGot: wire.got,
    silenceSeconds: Number(wire.silence.toFixed(1)),
    faults: [...conversation.faults, ...faults],
  };
}
