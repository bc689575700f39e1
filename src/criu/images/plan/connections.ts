import type { InetSocket } from '../../../model/socket.ts';
import { isLoopbackAddress, unmapped } from '../../../system/ip-address.ts';
import { type HolderOf, type Holders, holdersIn } from './holder-of.ts';
import type { PlannedConnect, RestorePlan } from './restore-plan.ts';

/** An address as text; that of an IPv4 connection of an IPv6 socket is an IPv4 one. */
function addressText(address: Uint8Array): string {
  const plain = unmapped(address);
  const groups = Buffer.from(plain).toString('hex').match(/.{4}/g) ?? [];
  return plain.length === 4 ? plain.join('.') : groups.join(':');
}

function connectsOf(holderOf: HolderOf, sockets: readonly InetSocket[]): PlannedConnect[] {
  return sockets.flatMap(({ id, flags, family, connecting }) => {
    if (connecting === undefined) return [];
    const { source, address, port } = connecting;
    const route = isLoopbackAddress(source)
      ? {}
      : { route: { to: addressText(address), from: addressText(source) } };
    const target = { address: Buffer.from(address).toString('hex'), port, ...route };
    return holderOf(id).map((holder) => ({ ...holder, flags, family, ...target }));
  });
}

/**
 * What the TCP connections of a group need to be made again, or begun anew; undefined if it has none. Throws
 * an Error if one is to be begun anew for which nobody has a descriptor: a capture refuses that.
 */
export function connectionsOf(group: Holders, holderOf = holdersIn(group)): RestorePlan['connections'] {
  const sockets = group.files.files.filter((file): file is InetSocket => file.type === 'inet');
  const connected = sockets.filter(({ connection }) => connection !== undefined);
  const connecting = sockets.flatMap((socket) => socket.connecting ?? []);
  if (connected.length + connecting.length === 0) return undefined;
  const connects = connectsOf(holderOf, sockets);
  if (connects.length < connecting.length) throw new Error('nobody has a socket that is to be connected');
  const own = [
    ...connected.map(({ sourceAddress }) => sourceAddress),
    ...connecting.map(({ source }) => source),
  ];
  const outside = own.filter((address) => !isLoopbackAddress(address));
  return { count: connected.length, addresses: [...new Set(outside.map(addressText))], connects };
}
