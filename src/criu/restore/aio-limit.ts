import { readFileSync, writeFileSync } from 'node:fs';
import type { GroupResource } from './resource.ts';

/** Requests that all contexts of the system may have, and what those that there are count for. */
export interface AioLimit {
  /** Of fs.aio-max-nr. */
  readonly limit: string;
  /** Of fs.aio-nr. */
  readonly count: string;
}

const system: AioLimit = { limit: '/proc/sys/fs/aio-max-nr', count: '/proc/sys/fs/aio-nr' };

function read(path: string): number {
  return Number(readFileSync(path, 'latin1'));
}

/**
 * Has the system allow the contexts of asynchronous I/O of a group besides those that there may be without
 * it. For good: they count for all that their rings have room for, which programs that make contexts
 * afterwards would find missing. Throws the file system's error if that is not possible.
 *
 * @param requests that CRIU asks for, of all of them
 * @returns a resource that takes it back if the group does not come back
 */
export function raiseAioLimit(requests: number, { limit, count }: AioLimit = system): GroupResource {
  if (requests === 0) return { finish: () => [] };
  const raised = Math.max(read(limit), read(count)) + requests;
  writeFileSync(limit, String(raised));
  return {
    finish: (isRestored) => {
      const now = read(limit);
      // Whoever has set it since to less meant that.
      if (!isRestored && now >= raised) writeFileSync(limit, String(now - requests));
      return [];
    },
  };
}
