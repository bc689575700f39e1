import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CrashProcedure, notContinuedStatus, recordLayout } from '../../model/crash-procedure.ts';
import { readProcedureState } from '../../model/procedure-incident.ts';
import { type ProcessEvent, ProcessEvents } from './process-events.ts';

/** How a delivered procedure ended. */
export interface ProcedureOutcome {
  readonly pid: number;
  /**
   * `continued`: it said so. `gave-up`: it is about to end its process. `replaced`: the process executed
   * another program. `exited`: the process ended with a status. `crashed`: a signal killed it. `overran`: its
   * time is over. `delivered`: a signal that nobody has answered within its time, which a handler may do.
   */
  readonly state: 'continued' | 'gave-up' | 'replaced' | 'exited' | 'crashed' | 'overran' | 'delivered';
  /** `with status 7`, `by signal 11`, `after 10 s`; undefined where the state says it all. */
  readonly detail: string | undefined;
}

/** A process whose procedure was delivered, by the number that it has now. */
export interface WatchedProcess {
  readonly pid: number;
  readonly procedure: CrashProcedure;
  /**
   * False: it has ended when it is another program, or gone; what it says in its record counts for nothing.
   */
  readonly mayContinue: boolean;
  /** When it was let go, by `performance.now()`; undefined: not before it is waited for. */
  readonly releasedAt?: number | undefined;
}

const pollMilliseconds = 25;

/**
 * Watches procedures from outside. To be made before the processes are restored, so that nothing is missed;
 * throws a ProcessEventsError where the kernel tells nothing of processes.
 */
export class ProcedureWatch {
  readonly #events = new ProcessEvents();
  /** The first event of each process: one that executes a program and ends was replaced. */
  readonly #ends = new Map<number, ProcessEvent>();
  /** While processes are restored, nobody waits for outcomes, and events come by the thousand. */
  readonly #collecting = setInterval(() => this.#collectAhead(), pollMilliseconds).unref();

  /** What goes wrong here goes wrong again, and is told, when outcomes are asked for. */
  #collectAhead(): void {
    try {
      this.#collect();
    } catch {
      clearInterval(this.#collecting);
    }
  }

  #collect(): void {
    for (const event of this.#events.take()) {
      if (!this.#ends.has(event.pid)) this.#ends.set(event.pid, event);
    }
  }

  /**
   * Waits until every procedure has ended or its time is over. A process is not touched. Throws a
   * ProcessEventsError if the kernel tells nothing more, after all outcomes that are known by then.
   *
   * @param defaultLimitMilliseconds for records that name no limit; a limit counts from the release of the
   *   process
   * @param tell called for each outcome as soon as it is known
   */
  async outcomes(
    processes: readonly WatchedProcess[],
    defaultLimitMilliseconds: number,
    tell: (outcome: ProcedureOutcome) => void = () => {},
  ): Promise<ProcedureOutcome[]> {
    const start = performance.now();
    const waiting = new Set(processes);
    const found = new Map<number, ProcedureOutcome>();
    while (waiting.size > 0) {
      // The records first: a process that continued and then ended has continued.
      const states = [...waiting].map((process) => [process, fromRecord(process)] as const);
      const failure = this.#failureToCollect();
      for (const [process, state] of states) {
        const limit = process.procedure.timeLimitMilliseconds ?? defaultLimitMilliseconds;
        const { releasedAt = start } = process;
        const over =
          failure === undefined && performance.now() - releasedAt >= limit
            ? atLimit(process, limit)
            : undefined;
        const end = fromEvent(process, this.#ends.get(process.pid));
        const outcome = state ?? end ?? this.#unseen(process) ?? over;
        if (outcome === undefined) continue;
        found.set(process.pid, { pid: process.pid, ...outcome });
        waiting.delete(process);
        tell({ pid: process.pid, ...outcome });
      }
      if (failure !== undefined && waiting.size > 0) throw failure.error;
      if (waiting.size > 0) await sleep(pollMilliseconds);
    }
    return processes.flatMap(({ pid }) => found.get(pid) ?? []);
  }

  #failureToCollect(): { readonly error: unknown } | undefined {
    try {
      this.#collect();
      return undefined;
    } catch (error) {
      return { error };
    }
  }

  /** A process that is gone, when an event was lost that would tell how. */
  #unseen({ pid }: WatchedProcess): End | undefined {
    if (!this.#events.lost || existsSync(`/proc/${pid}`)) return undefined;
    return { state: 'exited', detail: 'and the kernel had no room to tell how' };
  }

  close(): void {
    clearInterval(this.#collecting);
    this.#events.close();
  }
}

type End = Omit<ProcedureOutcome, 'pid'>;

function fromRecord({ pid, procedure, mayContinue }: WatchedProcess): End | undefined {
  if (!mayContinue) return undefined;
  const record = Buffer.alloc(recordLayout.id);
  try {
    const fd = openSync(`/proc/${pid}/mem`, 'r');
    try {
      if (readSync(fd, record, 0, record.length, procedure.address) < record.length) return undefined;
    } finally {
      closeSync(fd);
    }
  } catch {
    // The process or its mapping is gone: the events tell how.
    return undefined;
  }
  const { state, exitStatus } = readProcedureState(record);
  if (state === 'continued') return { state, detail: undefined };
  return state === 'gave-up' ? { state, detail: `with status ${exitStatus}` } : undefined;
}

function fromEvent({ mayContinue }: WatchedProcess, event: ProcessEvent | undefined): End | undefined {
  if (event === undefined) return undefined;
  if (event.kind === 'exec') return { state: 'replaced', detail: undefined };
  const signal = event.status & 0x7f;
  if (signal !== 0) return { state: 'crashed', detail: `by signal ${signal}` };
  const status = event.status >> 8;
  const went =
    !mayContinue && status === notContinuedStatus ? ', as one does that continues and may not' : '';
  return { state: 'exited', detail: `with status ${status}${went}` };
}

function atLimit({ procedure }: WatchedProcess, limitMilliseconds: number): End {
  const detail = `after ${limitMilliseconds / 1000} s`;
  return procedure.delivery.kind === 'call'
    ? { state: 'overran', detail }
    : { state: 'delivered', detail: `not answered ${detail}` };
}
