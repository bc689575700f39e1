import type { Sock } from '../../linux/sock.ts';
import { type UnixSock, unixSock } from '../../linux/unix.ts';
import type { OwnMake } from '../../model/open-file.ts';
import type { UnixSocket } from '../../model/socket.ts';
import { bytesToText, isWholeText } from '../../system/byte-text.ts';
import type { CaptureContext } from './context.ts';
import { attributesOf, directoriesAbove, type NamedFile, type Naming, namedFile } from './named.ts';
import { pathFilesOf } from './path-files.ts';
import { FileRefusal } from './refusal.ts';
import { ownMakeOf, refuseUnlessRootsAlone } from './roots-alone.ts';

function fileOf(context: CaptureContext, unix: UnixSock, sock: bigint): NamedFile {
  const namespace = context.namespaceOfHolders(context.system.holdersOfObject(sock));
  return namedFile(context, unix.mnt, unix.dentry, namespace);
}

/**
 * What has to be known of a socket's file to make it where others than root could lead CRIU elsewhere.
 * @param name as it was bound
 * @returns undefined if CRIU can make it
 * @throws FileRefusal if its name cannot be bound again, or the file is deleted: it would be made, and have a
 * name for a moment, where others see it
 */
export function lateNameOf(context: Naming, named: NamedFile, name: Uint8Array): OwnMake | undefined {
  const { path } = named;
  if (named.deleted) refuseUnlessRootsAlone(context, named, `the unix socket ${path}, deleted`);
  const late = ownMakeOf(context, named);
  if (late !== undefined && !isWholeText(bytesToText(Buffer.from(name))))
    throw new FileRefusal(`has the unix socket ${path}, whose name is not UTF-8`);
  return late;
}

/**
 * CRIU connects one socket to another by its name.
 * @param target `sock` of a socket that another is to be connected to
 * @throws FileRefusal if it is bound late: there is nothing by its name yet, or what somebody else has made
 */
export function refuseLateTarget(context: CaptureContext, target: bigint): void {
  const unix = context.kernel.bind(unixSock).at(target);
  if (unix.dentry === 0n) return;
  const named = fileOf(context, unix, target);
  refuseUnlessRootsAlone(context, named, `a unix socket connected to ${named.path}`);
}

/** The socket's file, if it is bound to a path, and what has to be made for it. */
export function socketFile(
  context: CaptureContext,
  sock: Sock,
  unix: UnixSock,
  name: Uint8Array,
): Pick<UnixSocket, 'file' | 'deleted' | 'nameDirectory' | 'late'> {
  if (unix.dentry === 0n)
    return { file: undefined, deleted: false, nameDirectory: undefined, late: undefined };
  const { kernel } = context;
  const named = fileOf(context, unix, sock.address);
  const { mode, uid, gid } = named.identity;
  const late = lateNameOf(context, named, name);
  const { directories } = pathFilesOf(context, named.namespace);
  directories.set(named.path, directoriesAbove(kernel, named));
  if (attributesOf(kernel, named.fileSystem, named.inode.address).length > 0) {
    const holders = context.system.holdersOfObject(sock.address);
    context.noteHolders(holders, `the socket ${named.path} has lost its ACL or other attributes`);
  }
  const text = Buffer.from(name).toString('utf8');
  const isRelative = !text.startsWith('/');
  if (isRelative && !named.path.endsWith(`/${text}`)) {
    throw new FileRefusal(`has a unix socket named ${text}, whose directory is not known`);
  }
  const nameDirectory = isRelative ? named.path.slice(0, -text.length - 1) || '/' : undefined;
  return { file: { mode, uid, gid }, deleted: named.deleted, nameDirectory, late };
}

/** The path of a socket's file. */
export function socketPaths({ file, late, name, nameDirectory }: UnixSocket): string[] {
  if (file === undefined) return [];
  if (late !== undefined) return [late.path];
  const text = Buffer.from(name).toString('utf8');
  return [nameDirectory === undefined ? text : `${nameDirectory.replace(/\/$/, '')}/${text}`];
}
