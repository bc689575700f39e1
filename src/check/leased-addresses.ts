import { spawnSync } from 'node:child_process';
import * as z from 'zod';
import { connectionsOf } from '../criu/images/plan/connections.ts';
import type { ProcessGroup } from '../model/group.ts';
import type { Process } from '../model/process.ts';

/** What `ip -json address show` says (iproute2): an address of `dynamic` has a time limit. */
const interfaces = z.array(
  z.object({
    ifname: z.string().optional(),
    addr_info: z
      .array(
        z.object({
          local: z.string().optional(),
          dynamic: z.boolean().optional(),
          temporary: z.boolean().optional(),
        }),
      )
      .optional(),
  }),
);

/** Addresses that the machine may not have after a panic: what each is, by its canonical text. */
export type LeasedAddresses = ReadonlyMap<string, string>;

/** One text for each address (RFC 5952): a URL's host is written so. */
function canonical(address: string): string {
  return address.includes(':') ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}

/**
 * Reads the output of `ip -json address show`.
 *
 * @returns the addresses that have a time limit; none if it cannot be understood
 */
export function leasedAddresses(output: string): LeasedAddresses {
  let listed: z.infer<typeof interfaces>;
  try {
    listed = interfaces.parse(JSON.parse(output));
  } catch {
    return new Map();
  }
  return new Map(
    listed.flatMap(({ ifname = '', addr_info = [] }) =>
      addr_info.flatMap(({ local, dynamic, temporary }): [string, string][] => {
        if (local === undefined || dynamic !== true) return [];
        const kind = temporary === true ? 'a temporary address' : 'an address with a time limit';
        return [[canonical(local), `${kind} of ${ifname}`]];
      }),
    ),
  );
}

/** Those of this machine; none if that cannot be told. */
export function leasedHere(): LeasedAddresses {
  const { status, stdout } = spawnSync('ip', ['-json', 'address', 'show'], { encoding: 'utf8' });
  return status === 0 ? leasedAddresses(stdout) : new Map();
}

/** Sentences about the connections of a process that need an address which the machine may not get again. */
export function leaseNotes(
  leased: LeasedAddresses,
  { files }: Pick<ProcessGroup, 'files'>,
  process: Process,
): string[] {
  const own = files.tables.find(({ filesId }) => filesId === process.filesId);
  const ids = new Set(own?.descriptors.map(({ fileId }) => fileId));
  // One that is lost goes on nowhere.
  const kept = files.files.filter((file) => file.type !== 'inet' || file.broken === undefined);
  const held = { tables: files.tables, files: kept.filter(({ id }) => ids.has(id)) };
  const needed = connectionsOf({ files: held, processes: [process] })?.addresses ?? [];
  return needed.flatMap((address) => {
    const what = leased.get(canonical(address));
    return what === undefined
      ? []
      : `has a TCP connection from ${canonical(address)}, ${what}: it goes on only if the machine has that address again`;
  });
}
