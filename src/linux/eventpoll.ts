import { ContainerError, hex } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, struct, u32, u64, type ViewOf } from '../vmcore/view.ts';
import { settled } from './container.ts';
import { fileStruct } from './fs.ts';
import { hlistForEachEntry } from './list.ts';
import { rbTreeForEachEntry } from './rbtree.ts';

/** `struct eventpoll` (fs/eventpoll.c), the private_data of an epoll file. */
export const eventpollStruct = struct('eventpoll', { root: addressOf('rbr'), file: pointer });

/** `struct epitem`: one watched file. */
export const epitem = struct('epitem', {
  rbn: addressOf('rbn'),
  fllink: addressOf('fllink'),
  file: pointer.at('ffd.file'),
  fd: s32.at('ffd.fd'),
  ep: pointer,
  events: u32.at('event.events'),
  data: u64.at('event.data'),
});

export type Epitem = ViewOf<typeof epitem>;

/** More watches than one epoll has in a sound machine. */
const MAX_WATCHES = 1 << 22;

/**
 * The watches of an epoll file (its `struct file`, and the `eventpoll` that is its private_data) in the order
 * of the tree. Throws a ContainerError if the tree is damaged, or an item belongs to another epoll.
 */
export function epitems(kernel: Kernel, file: bigint, eventpoll: bigint): Epitem[] {
  return settled(kernel, () => readItems(kernel, file, eventpoll));
}

function readItems(kernel: Kernel, file: bigint, eventpoll: bigint): Epitem[] {
  const view = kernel.bind(eventpollStruct).at(eventpoll);
  if (view.file !== file) {
    throw new ContainerError('eventpoll', eventpoll, `says that it is of the file at ${hex(view.file)}`);
  }
  const items = [...rbTreeForEachEntry(kernel, view.root, kernel.bind(epitem), 'rbn', MAX_WATCHES)];
  const stranger = items.find((item) => item.ep !== eventpoll);
  if (stranger !== undefined) {
    throw new ContainerError(
      'eventpoll',
      eventpoll,
      `holds the watch at ${hex(stranger.address)} of another one`,
    );
  }
  return items;
}

/**
 * The watches that a file (its `struct file`) knows of, of whatever epoll: a second source for those. Throws
 * a ContainerError if the list is damaged.
 */
export function watchesOf(kernel: Kernel, file: bigint): Epitem[] {
  const { f_ep: head } = kernel.bind(fileStruct).at(file);
  return head === 0n ? [] : [...hlistForEachEntry(kernel, head, kernel.bind(epitem), 'fllink', MAX_WATCHES)];
}
