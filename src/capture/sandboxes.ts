import { cgroupPath } from '../linux/cgroup.ts';
import { initialMountNamespace } from '../linux/dcache.ts';
import { ipcObjectCount } from '../linux/ipc-namespace.ts';
import { type NamespaceKind, namespacesOf } from '../linux/nsproxy.ts';
import type { TaskList } from '../linux/readers/task-list.ts';
import { type Task, taskAt } from '../linux/sched.ts';
import { readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { TaskGroup } from './tasks.ts';

/**
 * The installed service of the system's manager that a cgroup belongs to; undefined for everything else.
 * @param cgroup as in /proc/PID/cgroup
 */
export type ServiceOf = (cgroup: string) => string | undefined;

/** What becomes of processes that systemd runs in a sandbox. */
export interface SandboxRequest {
  /** `refuse`: their namespaces are a reason against them, as anybody's are. */
  readonly sandboxes: 'refuse' | 'restore';
  readonly serviceOf: ServiceOf;
}

/** Mount namespaces that a service can be given once more. */
export interface Sandboxes {
  /** The service that a mount namespace is the sandbox of; undefined if it is nobody's. */
  unitOf(namespace: bigint): string | undefined;
}

const INIT_NSPROXY = 'init_nsproxy';

/** Every mount namespace but the initial one is a stranger's. */
export const noSandboxes: Sandboxes = { unitOf: () => undefined };

/** The mount namespace of a process; undefined if it has left it already. */
export function mountNamespaceOf(kernel: Kernel, task: bigint): bigint | undefined {
  const { nsproxy } = taskAt(kernel, task);
  return nsproxy === 0n ? undefined : namespacesOf(kernel, nsproxy).get('mnt');
}

/** The sandboxes that processes may come back into: none unless that is asked for. */
export function wantedSandboxes(
  kernel: Kernel,
  list: TaskList,
  request: SandboxRequest | undefined,
): Sandboxes {
  return request?.sandboxes === 'restore' ? findSandboxes(kernel, list, request.serviceOf) : noSandboxes;
}

/** Why a process cannot come back for its namespaces; those of a service's sandbox are no reason. */
export function namespaceProblems(kernel: Kernel, sandboxes: Sandboxes, { nsproxy }: Task): string[] {
  const own = namespacesOf(kernel, nsproxy);
  const isSandboxed = sandboxes.unitOf(own.get('mnt') ?? 0n) !== undefined;
  return [...namespacesOf(kernel, kernel.symbol(INIT_NSPROXY))]
    .filter(([kind, address]) => own.get(kind) !== address)
    .flatMap(([kind]) => {
      const reason = `is in a ${kind} namespace of its own`;
      if (!isSandboxed) return [reason];
      if (kind === 'ipc') return ipcProblems(kernel, own.get(kind) ?? 0n, reason);
      return kind === 'mnt' || kind === 'uts' ? [] : [reason];
    });
}

/** An IPC namespace is made anew, and with nothing in it. */
function ipcProblems(kernel: Kernel, namespace: bigint, reason: string): string[] {
  const count = ipcObjectCount(kernel, namespace);
  return count === 0 ? [] : [`${reason}, which has ${count} System V objects or message queues`];
}

/**
 * The sandboxes of services. A mount namespace is one if it has all processes of one service, and nobody
 * else: what a service's own process or a container has made for itself is shared by some of them only.
 * Where a process cannot be read, nothing says who else is in one: there is none then.
 */
export function findSandboxes(kernel: Kernel, list: TaskList, serviceOf: ServiceOf): Sandboxes {
  const initial = initialMountNamespace(kernel);
  const units = new Map<bigint, Set<string | undefined>>();
  const namespaces = new Map<string, Set<bigint>>();
  let isComplete = list.isComplete && list.lost.length === 0;
  for (const address of list.tasks) {
    const place = readable(() => placeOf(kernel, address));
    if (place === undefined) isComplete = false;
    if (place?.namespace === undefined) continue;
    const unit = serviceOf(place.cgroup);
    units.set(place.namespace, (units.get(place.namespace) ?? new Set()).add(unit));
    if (unit !== undefined) namespaces.set(unit, (namespaces.get(unit) ?? new Set()).add(place.namespace));
  }
  return {
    unitOf: (namespace) => {
      const [unit, ...others] = units.get(namespace) ?? [];
      if (!isComplete || namespace === initial || unit === undefined || others.length > 0) return undefined;
      return namespaces.get(unit)?.size === 1 ? unit : undefined;
    },
  };
}

/** Nobody of the kernel's own threads or of those who have ended is in a place. */
function placeOf(kernel: Kernel, address: bigint): { namespace: bigint | undefined; cgroup: string } {
  const hasMemory = taskAt(kernel, address).mm !== 0n;
  return hasMemory
    ? { namespace: mountNamespaceOf(kernel, address), cgroup: cgroupPath(kernel, address) }
    : { namespace: undefined, cgroup: '/' };
}

/** The sandbox of a group. */
export interface Home {
  /** The mount namespace. */
  readonly namespace: bigint;
  readonly unit: string;
  /** The UTS and the IPC namespace, unless they are the initial ones. */
  readonly uts?: bigint | undefined;
  readonly ipc?: bigint | undefined;
}

function ownOf(kernel: Kernel, { nsproxy }: Task, kind: NamespaceKind): bigint | undefined {
  const [own, initial] = [nsproxy, kernel.symbol(INIT_NSPROXY)].map((proxy) =>
    readable(() => namespacesOf(kernel, proxy).get(kind)),
  );
  return own === initial ? undefined : own;
}

/** Which processes are in which sandbox. */
export class Homes {
  readonly #homes: ReadonlyMap<number, Home | undefined>;

  /** Processes without a namespace have ended, and are in none. */
  constructor(groups: readonly TaskGroup[], sandboxes: Sandboxes, kernel: Kernel) {
    this.#homes = new Map(
      groups.flatMap(({ pid, leader }): (readonly [number, Home | undefined])[] => {
        const namespace = readable(() => mountNamespaceOf(kernel, leader.address));
        if (namespace === undefined) return [];
        const unit = sandboxes.unitOf(namespace);
        if (unit === undefined) return [[pid, undefined]];
        const [uts, ipc] = (['uts', 'ipc'] as const).map((kind) => ownOf(kernel, leader, kind));
        return [[pid, { namespace, unit, uts, ipc }]];
      }),
    );
  }

  /** The sandbox that processes are in together; undefined if none of them is in one. */
  of(pids: Iterable<number>): Home | 'several' | undefined {
    const homes = [...pids].filter((pid) => this.#homes.has(pid)).map((pid) => this.#homes.get(pid));
    const [first, ...others] = homes;
    const isSame = (home: Home | undefined): boolean =>
      home?.namespace === first?.namespace && home?.uts === first?.uts && home?.ipc === first?.ipc;
    return others.every(isSame) ? first : 'several';
  }

  /** Why processes that are not in the same one cannot be restored together. */
  reason(pids: Iterable<number>): string {
    const members = [...pids].map((pid) => `${pid} (${this.#homes.get(pid)?.unit ?? 'in none'})`);
    return `belongs together with processes in another sandbox: ${members.join(', ')}`;
  }
}
