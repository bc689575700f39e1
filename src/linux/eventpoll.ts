import { ContainerError, hex } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, struct, u32, u64, type ViewOf } from '../vmcore/view.ts';
import { rbTreeForEachEntry } from './rbtree.ts';

/** `struct eventpoll` (fs/eventpoll.c), the private_data of an epoll file. */
const eventpollStruct = struct('eventpoll', { root: addressOf('rbr'), file: pointer });

/** `struct epitem`: one watched file. */
const epitem = struct('epitem', {
  rbn: addressOf('rbn'),
  file: pointer.at('ffd.file'),
  fd: s32.at('ffd.fd'),
  ep: pointer,
  events: u32.at('event.events'),
  data: u64.at('event.data'),
});

export type Epitem = ViewOf<typeof epitem>;

/** EPOLLWAKEUP, EPOLLONESHOT, EPOLLET, EPOLLEXCLUSIVE: all that is left of the events of a one-shot watch that went off. */
export const EP_PRIVATE_BITS = 0xf000_0000;

/** More watches than one epoll has in a sound machine. */
const MAX_WATCHES = 1 << 22;

/**
 * The watches of an epoll file in the order of the tree. Throws a ContainerError if the tree is damaged, or an item
 * belongs to another epoll.
 */
export function epitems(kernel: Kernel, eventpoll: bigint): Epitem[] {
  const { root } = kernel.bind(eventpollStruct).at(eventpoll);
  const items = [...rbTreeForEachEntry(kernel, root, kernel.bind(epitem), 'rbn', MAX_WATCHES)];
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
