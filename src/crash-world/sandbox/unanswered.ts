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
import { holdPorts } from '../../system/held-ports.ts';
import { unmapped } from '../../system/ip-address.ts';
import { withOpenFiles } from '../../system/process-settings.ts';
import type { TcpEnd } from '../../system/sockets.ts';
import { codeOf } from '../../system/thrown.ts';
import { leaveUnanswered, type TcpEnds } from '../../system/unanswered.ts';
import type { SandboxPlan } from './sandbox-plan.ts';
import { UNANSWERED } from './sandbox-units.ts';

/**
 * The holder ends by itself, whatever becomes of those who are to end it. It begins before the boot, which
 * may wait for disks; the unit that ends it has a time limit of its own.
 */
const SECONDS = 2 * 3600;
const END_MILLISECONDS = 10_000;
const POLL_MILLISECONDS = 20;

/** What is kept for the connections of a group until they are there. */
export interface Kept {
  /** Those that are made again with it: nobody answers for them. */
  readonly connections: readonly TcpEnds[];
  /** Their own ends, of which nobody else is given the port. */
  readonly ports: readonly TcpEnd[];
}

/**
 * A port that a socket of the group has which is no connection, such as a listening one, is not kept: that
 * one is bound as anybody's. Nor is that of a link-local address, which belongs to an interface that is not
 * there yet.
 */
export function keptOf({ files }: Pick<ProcessGroup, 'files'>): Kept {
  const sockets = files.files.filter((file): file is InetSocket => file.type === 'inet');
  const isConnected = ({ connection }: InetSocket): boolean => connection !== undefined;
  const others = new Set(sockets.filter((one) => !isConnected(one)).map(({ sourcePort }) => sourcePort));
  const found = sockets.filter(isConnected).map((one) => ({
    own: { address: unmapped(one.sourceAddress), port: one.sourcePort },
    peer: { address: unmapped(one.destinationAddress), port: one.destinationPort },
    isKept: one.interfaceName === undefined && !others.has(one.sourcePort),
  }));
  return {
    connections: found.map(({ own, peer }) => ({ own, peer })),
    ports: found.filter(({ isKept }) => isKept).map(({ own }) => own),
  };
}

/**
 * Leaves what comes for connections of a group unanswered, over the boot of the system: its peers send it
 * again until the connections are there. Their ports are given to nobody meanwhile. Throws an Error if that
 * is not possible.
 */
export function holdConnections(
  group: number,
  { connections, ports }: Kept,
  cgroups: string = UNANSWERED,
): void {
  if (connections.length === 0) return;
  const cgroup = join(cgroups, String(group));
  mkdirSync(cgroup, { recursive: true });
  // On their way to the holder each may have two numbers (uv_spawn).
  withOpenFiles(2 * ports.length, () => keep({ connections, ports }, cgroup));
}

function keep({ connections, ports }: Kept, cgroup: string): void {
  const fds = leaveUnanswered(connections);
  try {
    fds.push(...holdPorts(ports));
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

/** Why groups do not come back any more: something may have been answered for connections of one. */
export function answeredProblem(
  groups: readonly { readonly group: number; readonly plan: Pick<SandboxPlan, 'connections'> }[],
  cgroups?: string,
): string | undefined {
  return groups.some(({ group, plan }) => plan.connections > 0 && !isHeld(group, cgroups))
    ? 'the peers of its TCP connections may have been told that they are not there any more'
    : undefined;
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
