import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { OpenFile } from '../../model/file.ts';
import type { UnixSocket } from '../../model/socket.ts';
import { O_PATH } from '../../system/file-calls.ts';
import { isRootsAlone } from '../../system/file-mode.ts';
import { codeOf } from '../../system/thrown.ts';
import { pathOf } from '../files/found-file.ts';

type Socket = Pick<UnixSocket, 'type' | 'name' | 'nameDirectory' | 'file' | 'ownMake'>;
type Made = Exclude<OpenFile, UnixSocket> | Socket;

/**
 * What CRIU makes by a path, as root, of the files of a group: the files of its sockets, and deleted files,
 * which it makes once more and deletes. What this program makes is none of its.
 */
export function madePaths({ files }: { readonly files: readonly Made[] }): string[] {
  const paths = files.flatMap((file) => {
    if (file.type === 'unix') {
      const name = Buffer.from(file.name).toString('utf8');
      return file.file === undefined || file.ownMake !== undefined
        ? []
        : [join(file.nameDirectory ?? '/', name)];
    }
    const named = pathOf(file);
    return named?.ghostId === undefined || named.isOwnMake === true ? [] : [named.path];
  });
  return [...new Set(paths)];
}

/**
 * Why a file that CRIU is to make by its path, as root, is not: somebody else than root can write to a
 * directory on the way, and so could lead it elsewhere; or there is a link on the way, where the dead kernel
 * had none. What is not there leads nowhere: CRIU names it.
 * @param root where `/` is: `/proc/PID/root` for the paths of a process
 * @returns a sentence; undefined if nobody but root can change where the path leads
 * @throws the file system's error
 */
export function openWay(path: string, root = '/'): string | undefined {
  const names = dirname(path).split('/').filter(Boolean);
  // A link of /proc has to be followed.
  let fd = openSync(root, O_PATH | constants.O_DIRECTORY);
  try {
    for (let depth = 0; ; depth++) {
      const at = `/${names.slice(0, depth).join('/')}`;
      const stats = fstatSync(fd);
      if (!stats.isDirectory()) return `${path} cannot be made: ${at} is no directory, but a link or a file`;
      if (!isRootsAlone(stats)) return `${path} cannot be made: others than root can write to ${at}`;
      const name = names[depth];
      if (name === undefined) return undefined;
      const next = openNext(fd, name);
      if (next === undefined) return undefined;
      closeSync(fd);
      fd = next;
    }
  } finally {
    closeSync(fd);
  }
}

/** @returns undefined if there is nothing by the name */
function openNext(directory: number, name: string): number | undefined {
  try {
    return openSync(`/proc/self/fd/${directory}/${name}`, O_PATH | constants.O_NOFOLLOW);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
