import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ProcessGroup } from '../../model/group.ts';
import type { InetSocket } from '../../model/socket.ts';
import { unmapped } from '../../system/ip-address.ts';
import { codeOf } from '../../system/thrown.ts';
import { leaveUnanswered, type TcpEnds } from '../../system/unanswered.ts';
import { SANDBOX_MINUTES, UNANSWERED } from './sandbox-units.ts';

/** The holder ends by itself, whatever becomes of those who are to end it. */
const SECONDS = 60 * (SANDBOX_MINUTES + 5);
const END_MILLISECONDS = 10_000;
const POLL_MILLISECONDS = 20;

/** The connections of a group that are made again with it. */
export function connectionsOf({ files }: Pick<ProcessGroup, 'files'>): TcpEnds[] {
  return files.files
    .filter((file): file is InetSocket => file.type === 'inet')
    .filter(({ connection }) => connection !== undefined)
    .map(({ sourceAddress, sourcePort, destinationAddress, destinationPort }) => ({
      own: { address: unmapped(sourceAddress), port: sourcePort },
      peer: { address: unmapped(destinationAddress), port: destinationPort },
    }));
}

/**
 * Leaves what comes for connections of a group unanswered, over the boot of the system: its peers send it
 * again until the connections are there. Throws an Error if that is not possible.
 */
export function holdConnections(
  group: number,
  connections: readonly TcpEnds[],
  cgroups: string = UNANSWERED,
): void {
  if (connections.length === 0) return;
  const cgroup = join(cgroups, String(group));
  mkdirSync(cgroup, { recursive: true });
  const fds = leaveUnanswered(connections);
  try {
    const holder = spawn('/bin/sleep', [String(SECONDS)], {
      detached: true,
      stdio: ['ignore', 'ignore', 'ignore', ...fds],
    });
    // It is seen by its number.
    holder.on('error', () => undefined);
    if (holder.pid === undefined) throw new Error('nobody holds what leaves its connections unanswered');
    holder.unref();
    try {
      writeFileSync(join(cgroup, 'cgroup.procs'), String(holder.pid));
    } catch (error) {
      holder.kill('SIGKILL');
      throw error;
    }
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** Whether nothing has been answered for the connections of a group so far. */
export function isHeld(group: number, cgroups: string = UNANSWERED): boolean {
  try {
    return readFileSync(join(cgroups, String(group), 'cgroup.procs'), 'latin1') !== '';
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/**
 * Has what comes for connections of a group answered again, by the connections or with a reset; does nothing
 * for a group without any.
 */
export function answerConnections(group: number, cgroups: string = UNANSWERED): void {
  const kill = join(cgroups, String(group), 'cgroup.kill');
  if (existsSync(kill)) writeFileSync(kill, '1');
}

/** The same, of all groups; nothing is left. Throws an Error if a holder does not end. */
export async function answerAll(cgroups: string = UNANSWERED): Promise<void> {
  if (!existsSync(cgroups)) return;
  writeFileSync(join(cgroups, 'cgroup.kill'), '1');
  const end = performance.now() + END_MILLISECONDS;
  while (!readFileSync(join(cgroups, 'cgroup.events'), 'latin1').includes('populated 0')) {
    if (performance.now() > end) throw new Error(`what holds connections does not end: ${cgroups}`);
    await sleep(POLL_MILLISECONDS);
  }
  const entries = readdirSync(cgroups, { withFileTypes: true });
  for (const entry of entries.filter((one) => one.isDirectory())) rmdirSync(join(cgroups, entry.name));
  rmdirSync(cgroups);
}
