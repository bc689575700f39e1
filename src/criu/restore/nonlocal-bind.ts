import { readFileSync, writeFileSync } from 'node:fs';

const switches = ['/proc/sys/net/ipv4/ip_nonlocal_bind', '/proc/sys/net/ipv6/ip_nonlocal_bind'];

/**
 * Runs a step while sockets may be bound to addresses that the machine does not have yet: the network comes
 * up after the processes. Does nothing about a switch that cannot be set.
 */
export async function withNonlocalBind<T>(step: () => Promise<T>): Promise<T> {
  const before = switches.flatMap((path): [string, string][] => {
    try {
      const value = readFileSync(path, 'utf8');
      writeFileSync(path, '1');
      return [[path, value]];
    } catch {
      return [];
    }
  });
  try {
    return await step();
  } finally {
    for (const [path, value] of before) writeFileSync(path, value);
  }
}
