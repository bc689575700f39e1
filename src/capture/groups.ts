import type { SharingEdge } from '../model/group.ts';
import type { Process } from '../model/process.ts';

/** What of a process says with whom it belongs together. */
export type Member = Pick<Process, 'pid' | 'ppid' | 'pgid' | 'sid' | 'comm' | 'memory' | 'findings'>;

/** Processes that have to be restored together, and what ties each of them to another one. */
export interface Grouping<M extends Member> {
  readonly groups: readonly (readonly M[])[];
  /** One tie of each process, for explaining a refusal: `parent`, `session`, `pipe 4711` ... */
  readonly ties: ReadonlyMap<number, readonly SharingEdge[]>;
}

/**
 * A tie as one of its two processes sees it.
 * @returns the other process, and why: `its parent`, `its child`, `the same session`, `a pipe` ...
 */
export function tieOf(pid: number, { pids: [a, b], why }: SharingEdge): { with: number; why: string } {
  const isSecond = pid === b;
  const other = isSecond ? a : b;
  if (why === 'is its parent') return { with: other, why: isSecond ? 'its parent' : 'its child' };
  const [, same] = /^shares its (.+) with$/.exec(why) ?? [];
  if (same !== undefined) return { with: other, why: `the same ${same}` };
  return { with: other, why: why === 'shares memory with' ? 'shared memory' : why };
}

/** Which numbers have been joined with which. */
export class UnionFind {
  readonly #parent = new Map<number, number>();

  find(item: number): number {
    let root = item;
    for (let next = this.#parent.get(root); next !== undefined; next = this.#parent.get(root)) root = next;
    // The way is as short next time.
    for (let at = item; at !== root; ) {
      const next = this.#parent.get(at) ?? root;
      this.#parent.set(at, root);
      at = next;
    }
    return root;
  }

  join(a: number, b: number): void {
    const [x, y] = [this.find(a), this.find(b)];
    if (x !== y) this.#parent.set(x, y);
  }
}

/** Ties that follow from the processes themselves: family, session, process group, shared memory. */
function ownEdges(processes: readonly Member[]): SharingEdge[] {
  const edges: SharingEdge[] = [];
  const pids = new Set(processes.map(({ pid }) => pid));
  const first = new Map<string, number>();
  const tie = (key: string, why: string, pid: number): void => {
    const other = first.get(key);
    if (other === undefined) first.set(key, pid);
    else if (other !== pid) edges.push({ pids: [other, pid], why });
  };
  for (const process of processes) {
    const { pid, ppid, sid, pgid, memory } = process;
    if (pids.has(ppid)) edges.push({ pids: [ppid, pid], why: 'is its parent' });
    tie(`session ${sid}`, 'shares its session with', pid);
    tie(`process group ${pgid}`, 'shares its process group with', pid);
    if (memory === undefined) continue;
    tie(`memory ${memory.id}`, 'shares its address space with', pid);
    for (const { shmid } of memory.vmas) {
      if (shmid !== undefined) tie(`shared memory ${shmid}`, 'shares memory with', pid);
    }
  }
  return edges;
}

/** Joins processes that share something into groups; the order of processes is kept. */
export function groupProcesses<M extends Member>(
  processes: readonly M[],
  fileEdges: readonly SharingEdge[],
): Grouping<M> {
  const known = new Set(processes.map(({ pid }) => pid));
  const edges = [...ownEdges(processes), ...fileEdges].filter(
    ({ pids: [a, b] }) => known.has(a) && known.has(b),
  );
  const sets = new UnionFind();
  const ties = new Map<number, SharingEdge[]>();
  for (const edge of edges) {
    const [a, b] = edge.pids;
    sets.join(a, b);
    for (const pid of [a, b]) {
      const known = ties.get(pid);
      if (known === undefined) ties.set(pid, [edge]);
      else known.push(edge);
    }
  }
  const groups = Map.groupBy(processes, ({ pid }) => sets.find(pid));
  return { groups: [...groups.values()], ties };
}
