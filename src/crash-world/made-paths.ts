import { closeSync, constants, fstatSync, lstatSync, openSync, readlinkSync, type Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import type { OpenFile } from '../model/file.ts';
import type { UnixSocket } from '../model/socket.ts';
import { messageOf } from '../system/thrown.ts';
import { pathOf } from './found-file.ts';

/** Not in node's constants. */
const O_PATH = 0o10000000;
const DIRECTORY = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const WRITABLE_BY_OTHERS = 0o022;
/** As many links as the kernel follows in one path (MAXSYMLINKS of linux/namei.h). */
const MOST_LINKS = 40;

type Made = Exclude<OpenFile, UnixSocket> | Pick<UnixSocket, 'type' | 'name' | 'nameDirectory' | 'file'>;

/**
 * What CRIU makes by a path, as root, of the files of a group: the files of its sockets, and deleted files,
 * which it makes once more and deletes.
 */
export function madePaths({ files }: { readonly files: readonly Made[] }): string[] {
  const paths = files.flatMap((file) => {
    if (file.type === 'unix') {
      const name = Buffer.from(file.name).toString('utf8');
      return file.file === undefined ? [] : [join(file.nameDirectory ?? '/', name)];
    }
    const named = pathOf(file);
    return named?.ghostId === undefined ? [] : [named.path];
  });
  return [...new Set(paths)];
}

/** Whether nobody but root can make, take away or rename what is in a directory. */
export function isRootsAlone({ uid, mode }: Pick<Stats, 'uid' | 'mode'>): boolean {
  return uid === 0 && (mode & WRITABLE_BY_OTHERS) === 0;
}

/** A directory on the way. */
export interface Passed {
  readonly path: string;
  /** Leads to it, whatever others do to its name meanwhile; closed when the next one is opened. */
  readonly fd: number;
  readonly stats: Stats;
}

/**
 * Goes down to the directory that something is to be made in, or as far as there are directories, in the
 * way in which the kernel follows the path.
 * @param root where `/` is: `/proc/PID/root` for the paths of a process
 * @param pass called for each directory before anything in it is looked at; returns whether nobody but root
 * can have made what is in it
 * @throws Error if there is a symbolic link on the way that somebody else than root can have made; what
 * `pass` throws
 */
export function goDown(path: string, pass: (directory: Passed) => boolean, root = '/'): void {
  const rest = dirname(path).split('/').filter(Boolean);
  let at = '/';
  // A link of /proc has to be followed.
  let fd = openSync(root, O_PATH | constants.O_DIRECTORY);
  try {
    let isTrusted = pass({ path: at, fd, stats: fstatSync(fd) });
    for (let links = 0, name = rest.shift(); name !== undefined; name = rest.shift()) {
      const place = `/proc/self/fd/${fd}/${name}`;
      const here = name === '..' ? dirname(at) : join(at, name);
      const found = lstatSync(place, { throwIfNoEntry: false });
      if (found === undefined) return;
      const target = found.isSymbolicLink() ? readlinkSync(place) : undefined;
      if (target !== undefined && (!isTrusted || ++links > MOST_LINKS))
        throw new Error(`${path} is behind the symbolic link ${here}, which others than root can make`);
      if (target !== undefined) rest.unshift(...target.split('/').filter(Boolean));
      if (target !== undefined && !target.startsWith('/')) continue;
      const next = target === undefined ? openSync(place, DIRECTORY) : openSync(root, O_PATH);
      closeSync(fd);
      fd = next;
      at = target === undefined ? here : '/';
      isTrusted = pass({ path: at, fd, stats: fstatSync(fd) });
    }
  } finally {
    closeSync(fd);
  }
}

/**
 * Which of the paths lead where others than root want. What is on a disk may be older than what the dead
 * kernel knew: its path had no link in it. To be called where nobody else runs.
 * @returns a sentence for each
 */
export function ledElsewhere(paths: readonly string[]): string[] {
  return paths.flatMap((path) => {
    try {
      goDown(path, ({ stats }) => isRootsAlone(stats));
      return [];
    } catch (error) {
      return [`${path} cannot be made: ${messageOf(error)}`];
    }
  });
}
