import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readStateFile, replaceFile } from './state-file.ts';
import { codeOf, messageOf } from './thrown.ts';

const switches = ['/proc/sys/net/ipv4/ip_nonlocal_bind', '/proc/sys/net/ipv6/ip_nonlocal_bind'];
/** The switches that were set here and not put back yet, a line for each; written before one is set. */
const RECORD = '/run/otherworld/nonlocal-bind';

const OFF = '0';
/**
 * On, as any value but 0 is (both are bytes without limits, net/ipv4/sysctl_net_ipv4.c and its like of IPv6;
 * inet_can_nonlocal_bind()). One that is set meanwhile is most likely another.
 */
const OURS = '2';

function read(path: string): string {
  return readFileSync(path, 'latin1').trim();
}

/**
 * Runs a step while sockets may be bound to addresses that the machine does not have yet: the network comes
 * up after the processes. Does nothing about a switch that cannot be set. A value that is set meanwhile
 * stays; if this program is killed, `endNonlocalBind` finds by the record what it has left.
 */
export async function withNonlocalBind<T>(
  step: () => Promise<T>,
  paths: readonly string[] = switches,
  record: string = RECORD,
): Promise<T> {
  for (const path of paths) {
    try {
      if (read(path) !== OFF) continue;
      replaceFile(record, [...recorded(record), path, ''].join('\n'));
      writeFileSync(path, OURS);
    } catch {
      // IPv6 may be left out of the kernel; a socket that cannot be bound is named by CRIU.
    }
  }
  try {
    return await step();
  } finally {
    // What cannot be put back stays in the record, and whoever comes next names it.
    endNonlocalBind(record);
  }
}

/**
 * Puts back the switches that a restore has set, where they are still as it has set them: without a record
 * of that, a value is somebody else's, whatever it is.
 * @returns a sentence for each that cannot be put back
 */
export function endNonlocalBind(record: string = RECORD): string[] {
  try {
    const problems = recorded(record).flatMap((path) => putBack(path) ?? []);
    if (problems.length === 0) rmSync(record, { force: true });
    return problems;
  } catch (error) {
    return [`${record}: ${messageOf(error)}`];
  }
}

function recorded(record: string): string[] {
  return readStateFile(record)?.split('\n').filter(Boolean) ?? [];
}

function putBack(path: string): string | undefined {
  try {
    if (read(path) === OURS) writeFileSync(path, OFF);
    return undefined;
  } catch (error) {
    return codeOf(error) === 'ENOENT' ? undefined : `${path} cannot be put back to 0: ${messageOf(error)}`;
  }
}
