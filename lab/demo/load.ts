import { join } from 'node:path';
import type { IncidentReport } from '../../src/report/schema.ts';
import { copyFiles } from '../channel.ts';
import { LabError } from '../error.ts';
import type { Progress } from '../progress.ts';
import { inGuest, until } from './scene.ts';

const DIRECTORY = '/root/demo';
const PROGRAM = `${DIRECTORY}/load.py`;
const RECORD = `${DIRECTORY}/load.acknowledged`;
/** Of Redis: what is written all the time is apart from the keys that stay as they are. */
const DATABASE = 1;
/** As many that the memory of Redis does not grow, however long and fast the load is. */
export const LOAD_KEYS = 10_000;
/** Writes that are sent together. */
export const LOAD_BATCH = 100;

/** The client that loads Redis until the panic, and is not protected. */
export interface Load {
  readonly pid: number;
  /** Requests that Redis served in a second, as it says. */
  readonly requestsPerSecond: number;
  /** Writes that it had an answer to when it had begun. */
  readonly acknowledged: number;
}

/** What is there of the load after the panic. */
export interface LoadAfterwards {
  /** Writes that the client had an answer to right before the panic. */
  readonly acknowledgedBefore: number;
  /** Writes that the client had an answer to, by its record on the disk. */
  readonly acknowledged: number;
  /** The value of each of LOAD_KEYS keys; `undefined` for one that is not there. */
  readonly values: readonly (number | undefined)[];
  /** Whether the client has gone. */
  readonly isGone: boolean;
  /** Whether Redis has heard of that: it has no such client any more. */
  readonly isReset: boolean;
  /** Whether a client that connects now has its write acknowledged, and reads it. */
  readonly servesNew: boolean;
}

/** Starts the load, and waits until each of its keys was written. */
export async function startLoad(guest: string, progress: Progress): Promise<Load> {
  progress.step('putting Redis under load, by a client that is not protected');
  await copyFiles(guest, join(import.meta.dirname, 'load.py'), `${guest}:${PROGRAM}`);
  const command = `python3 ${PROGRAM} ${RECORD} ${DATABASE} ${LOAD_KEYS} ${LOAD_BATCH}`;
  const start = `setsid ${command} </dev/null >${DIRECTORY}/load.log 2>&1 & echo $!`;
  const pid = Number(await inGuest(guest, start));
  await until(guest, `[ "$(cat ${RECORD})" -ge ${LOAD_KEYS} ] 2>/dev/null`, 300);
  const rate = "redis-cli info stats | tr -d '\\r' | sed -n 's/^instantaneous_ops_per_sec://p'";
  const requestsPerSecond = Number(await inGuest(guest, rate));
  return { pid, requestsPerSecond, acknowledged: await acknowledgedNow(guest) };
}

/** Writes that the client has had an answer to, by its record; 0 without one. */
export async function acknowledgedNow(guest: string): Promise<number> {
  return Number(await inGuest(guest, `cat ${RECORD} || true`));
}

const readValues = `
local values = {}
for key = 0, ${LOAD_KEYS - 1} do values[key + 1] = redis.call('GET', key) or 'none' end
return table.concat(values, ' ')`;

/**
 * Looks at what the load has left, when Redis has heard that its client is gone.
 * @param acknowledgedBefore what `acknowledgedNow` gave right before the panic
 */
export async function lookAtLoad(
  guest: string,
  { pid }: Load,
  acknowledgedBefore: number,
): Promise<LoadAfterwards> {
  const clients = '/run/demo-clients';
  const isReset = await comesTrue(
    guest,
    `redis-cli client list >${clients} && ! grep -q name=load ${clients}`,
  );
  const isGone = await comesTrue(guest, `! grep -qs ${PROGRAM} /proc/${pid}/cmdline`);
  const client = `redis-cli -n ${DATABASE + 1}`;
  const served = `[ "$(${client} set client new)" = OK ] && [ "$(${client} get client)" = new ]`;
  const servesNew = await comesTrue(guest, served);
  const acknowledged = await acknowledgedNow(guest);
  const values = await inGuest(guest, `redis-cli -n ${DATABASE} --raw eval "${readValues}" 0 || true`);
  const numberIn = (text: string): number | undefined => (/^\d+$/.test(text) ? Number(text) : undefined);
  const found = values.trim().split(' ').map(numberIn);
  return { acknowledgedBefore, acknowledged, values: found, isGone, isReset, servesNew };
}

/** Whether a script succeeds within a minute. */
async function comesTrue(guest: string, script: string): Promise<boolean> {
  try {
    await until(guest, script, 60);
    return true;
  } catch (error) {
    if (error instanceof LabError) return false;
    throw error;
  }
}

/**
 * Keys that have neither the last write that was acknowledged nor a later one of the client's.
 * @param acknowledged so many writes: number n, from 0 on, gives the key n modulo LOAD_KEYS the value n
 */
export function wrongKeys({ acknowledged, values }: Pick<LoadAfterwards, 'acknowledged' | 'values'>): number {
  const oldest = Math.max(0, acknowledged - LOAD_KEYS);
  const end = acknowledged + 2 * LOAD_BATCH;
  const isRight = (key: number): boolean => {
    const value = values[key];
    if (value === undefined) return key >= acknowledged;
    return value % LOAD_KEYS === key && value >= oldest && value < end;
  };
  return Array.from({ length: LOAD_KEYS }, (_, key) => key).filter((key) => !isRight(key)).length;
}

/** Whether writes were acknowledged up to the panic, and the record of none of them was lost. */
export function wasUnderLoad(
  { acknowledged: atBegin }: Pick<Load, 'acknowledged'>,
  { acknowledgedBefore, acknowledged }: Pick<LoadAfterwards, 'acknowledged' | 'acknowledgedBefore'>,
): boolean {
  return atBegin > 0 && acknowledgedBefore > atBegin && acknowledged >= acknowledgedBefore;
}

/**
 * Whether Redis's connection to the client was there at the panic, and was reset because the client was lost.
 * @param redis its PID
 */
export function wasReset(
  {
    processes,
  }: { readonly processes: readonly Pick<IncidentReport['processes'][number], 'pid' | 'losses'>[] },
  { pid }: Pick<Load, 'pid'>,
  redis: number,
): boolean {
  const words = new RegExp(`is reset: its other end was that of PID ${pid} `);
  return processes.some(
    (process) => process.pid === redis && process.losses?.some(({ what }) => words.test(what)) === true,
  );
}
