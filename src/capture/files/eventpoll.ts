import { type Epitem, epitems, watchesOf } from '../../linux/eventpoll.ts';
import { type FdSlot, fdSlots } from '../../linux/fdtable.ts';
import type { File } from '../../linux/fs.ts';
import { taskAt } from '../../linux/sched.ts';
import type { EventPoll, EventPollTarget } from '../../model/file.ts';
import { ContainerError, hex } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { CaptureContext } from './context.ts';
import type { Holder } from './holders/holders.ts';
import { FileRefusal } from './refusal.ts';

/**
 * An epoll file. CRIU opens it in the process with the lowest PID that holds it and adds the watches by
 * descriptor number there: each watched file must have a descriptor in that process, if possible the number
 * it was added under. Throws a FileRefusal if one has none. `idOf` captures a watched file.
 */
export function captureEventpoll(
  context: CaptureContext,
  file: File,
  idOf: (address: bigint) => number,
): EventPoll {
  const { kernel } = context;
  const holders = context.system.holdersOfFile(file.address).filter(({ isProtected }) => isProtected);
  const opener = holders.toSorted((a, b) => a.pid - b.pid)[0];
  const task = opener === undefined ? undefined : context.tasks.get(opener.pid);
  if (opener === undefined || task === undefined) throw new FileRefusal('has an epoll that nobody holds');
  const table = context.of(WatchedTables).at(taskAt(kernel, task.task).files);
  const items = epitems(kernel, file.address, file.private_data);
  checkWatches(file, items, table.watches());
  const targets = items.map((item): EventPollTarget => {
    const same = table.slots.get(item.file) ?? [];
    const slot = same.find(({ fd }) => fd === item.fd) ?? same[0];
    if (slot === undefined) {
      throw new FileRefusal(`has an epoll that watches a file (added as fd ${item.fd}) without a descriptor`);
    }
    if (slot.fd !== item.fd) noteMoved(context, holders, item, slot.fd);
    return { fd: slot.fd, fileId: idOf(item.file), events: item.events, data: item.data };
  });
  return { type: 'eventpoll', ...context.common(file), targets };
}

/** What the epolls of a process need to know of its file table, read once for all of them. */
interface WatchedTable {
  /** By the address of the struct file. */
  readonly slots: ReadonlyMap<bigint, readonly FdSlot[]>;
  /**
   * The watches that the files say they have, by their eventpoll. Throws a ContainerError if what one says is
   * damaged.
   */
  watches(): ReadonlyMap<bigint, readonly Epitem[]>;
}

class WatchedTables {
  readonly #kernel: Kernel;
  readonly #byAddress = new Map<bigint, WatchedTable>();

  constructor({ kernel }: CaptureContext) {
    this.#kernel = kernel;
  }

  /** @param files address of the files_struct */
  at(files: bigint): WatchedTable {
    const known = this.#byAddress.get(files);
    if (known !== undefined) return known;
    const kernel = this.#kernel;
    const slots = Map.groupBy(fdSlots(kernel, files), ({ file }) => file);
    let watches: Map<bigint, Epitem[]> | undefined;
    const readWatches = (): Map<bigint, Epitem[]> => {
      const all = [...slots.keys()].flatMap((file) => (file === 0n ? [] : watchesOf(kernel, file)));
      return Map.groupBy(all, ({ ep }) => ep);
    };
    const table = { slots, watches: () => (watches ??= readWatches()) };
    this.#byAddress.set(files, table);
    return table;
  }
}

/**
 * Every watch that a file of the process says this epoll has must be in its tree: a tree that has lost some
 * looks like a whole one.
 */
function checkWatches(
  { private_data: eventpoll }: File,
  items: readonly Epitem[],
  watches: ReadonlyMap<bigint, readonly Epitem[]>,
): void {
  const known = new Set(items.map(({ address }) => address));
  const lost = (watches.get(eventpoll) ?? []).find(({ address }) => !known.has(address));
  if (lost !== undefined) {
    throw new ContainerError('eventpoll', eventpoll, `has lost the watch at ${hex(lost.address)}`);
  }
}

function noteMoved(context: CaptureContext, holders: readonly Holder[], item: Epitem, fd: number): void {
  context.noteHolders(holders, `an epoll watch that was added as fd ${item.fd} is now one of fd ${fd}`);
}
