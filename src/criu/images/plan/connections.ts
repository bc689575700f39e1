import type { GroupFiles } from '../../../model/file.ts';
import type { InetSocket } from '../../../model/socket.ts';
import { isLoopbackAddress, unmapped } from '../../../system/ip-address.ts';
import type { RestorePlan } from './restore-plan.ts';

/** An address as text; that of an IPv4 connection of an IPv6 socket is an IPv4 one. */
function addressText(address: Uint8Array): string {
  const plain = unmapped(address);
  const groups = Buffer.from(plain).toString('hex').match(/.{4}/g) ?? [];
  return plain.length === 4 ? plain.join('.') : groups.join(':');
}

/** What the TCP connections of a group need to be made again; undefined if it has none. */
export function connectionsOf({ files }: Pick<GroupFiles, 'files'>): RestorePlan['connections'] {
  const connected = files.filter(
    (file): file is InetSocket => file.type === 'inet' && file.connection !== undefined,
  );
  if (connected.length === 0) return undefined;
  const outside = connected.filter(({ sourceAddress }) => !isLoopbackAddress(sourceAddress));
  const addresses = new Set(outside.map(({ sourceAddress }) => addressText(sourceAddress)));
  return { count: connected.length, addresses: [...addresses] };
}
