import { basename } from 'node:path';
import { type Sock, tcpState } from '../../../../linux/sock.ts';
import { type UnixSock, unixName, unixSock } from '../../../../linux/unix.ts';
import { hasAcl } from '../../../../linux/xattr.ts';
import type { OwnMake } from '../../../../model/open-file.ts';
import type { UnixSocket } from '../../../../model/socket.ts';
import { SOCK_DGRAM } from '../../../../system/abi.ts';
import { bytesToText, isWholeText } from '../../../../system/byte-text.ts';
import type { CaptureContext } from '../../context.ts';
import { attributesOf, directoriesAbove, type NamedFile, type Naming, namedFile } from '../../named.ts';
import { pathFilesOf } from '../../path/path-files.ts';
import { ledElsewhere, ownMakeOf, refuseUnlessRootsAlone } from '../../path/roots-alone.ts';
import { FileRefusal } from '../../refusal.ts';

function fileOf(context: CaptureContext, unix: UnixSock, sock: bigint): NamedFile {
  const namespace = context.namespaceOfHolders(context.system.holdersOfObject(sock));
  return namedFile(context, unix.mnt, unix.dentry, namespace);
}

/** Whether a name is the path of its file, or the end of it: not if it led there through links. */
function isItsPath(name: string, path: string): boolean {
  return name.startsWith('/') ? name === path : path.endsWith(`/${name}`);
}

/**
 * Whether a file has another name than the one that was bound, as servers give it that must not be found
 * before they listen. It may also be in another directory, which is not known of a relative name.
 */
function wasRenamed(name: string, path: string): boolean {
  return name.startsWith('/') && basename(name) !== basename(path);
}

/**
 * What has to be known of the file of a socket that CRIU does not bind, because the name is one that the file
 * has no more; in a sandbox also because others than root could lead it elsewhere, or the name leads there
 * through a link.
 * @param name as it was bound
 * @returns undefined if CRIU can bind it
 * @throws FileRefusal if its name cannot be bound again, or the file is deleted and was in a sandbox: it
 * would be made, and have a name for a moment, where others see it
 */
export function lateNameOf(context: Naming, named: NamedFile, name: Uint8Array): OwnMake | undefined {
  const { path, deleted, namespace } = named;
  const isInSandbox = context.sandboxes.unitOf(namespace) !== undefined;
  if (deleted && isInSandbox) refuseUnlessRootsAlone(context, named, `the unix socket ${path}, deleted`);
  const text = bytesToText(Buffer.from(name));
  if (deleted || (ledElsewhere(context, named) === undefined && isItsPath(text, path))) return undefined;
  if (!isInSandbox && !wasRenamed(text, path)) return undefined;
  if (!isWholeText(text)) throw new FileRefusal(`has the unix socket ${path}, whose name is not UTF-8`);
  return ownMakeOf(context, named);
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
  if (lateNameOf(context, named, unixName(context.kernel, unix)) === undefined) return;
  const where = context.sandboxes.unitOf(named.namespace) === undefined ? '' : ' in its sandbox';
  throw new FileRefusal(
    `has a unix socket connected to ${named.path}, which cannot be made${where}: that is bound later`,
  );
}

/**
 * CRIU binds a socket to the name that was bound. Throws a FileRefusal if nothing tells where that is.
 * @param isBound whether CRIU binds it, and the file is to stay
 * @returns where the name has to lead, if it is not the path itself: there may be links on the way, or the
 * directories above it were renamed
 */
export function checkBoundName(text: string, path: string, isBound: boolean): string | undefined {
  if (isItsPath(text, path)) return undefined;
  if (!text.startsWith('/'))
    throw new FileRefusal(`has a unix socket named ${text}, whose directory is not known`);
  return isBound ? path : undefined;
}

/** Whether it is one end of a connection: CRIU makes it with the other end, and binds it to nothing. */
export function isConnection(sock: Sock): boolean {
  return sock.sk_type !== SOCK_DGRAM && sock.state === tcpState.established;
}

/** The socket's file, if it is bound to a path, and what has to be made for it. */
export function socketFile(
  context: CaptureContext,
  sock: Sock,
  unix: UnixSock,
  name: Uint8Array,
): Pick<UnixSocket, 'file' | 'deleted' | 'nameDirectory' | 'ownMake' | 'leadsTo'> {
  if (unix.dentry === 0n)
    return { file: undefined, deleted: false, nameDirectory: undefined, ownMake: undefined };
  const { kernel } = context;
  const named = fileOf(context, unix, sock.address);
  const { mode, uid, gid } = named.identity;
  const ownMake = lateNameOf(context, named, name);
  const { directories } = pathFilesOf(context, named.namespace);
  directories.set(named.path, directoriesAbove(kernel, named));
  const isBound = !named.deleted && !isConnection(sock);
  // That of an old file on a disk is given to the new one only where CRIU does not make that.
  const losesAcl = isBound && ownMake === undefined && hasAcl(kernel, named.inode.address) === true;
  if (losesAcl || attributesOf(kernel, named.fileSystem, named.inode.address).length > 0) {
    const holders = context.system.holdersOfObject(sock.address);
    context.noteHolders(holders, `the socket ${named.path} has lost its ACL or other attributes`);
  }
  const text = Buffer.from(name).toString('utf8');
  const leadsTo = ownMake === undefined ? checkBoundName(text, named.path, isBound) : undefined;
  const isRelative = ownMake === undefined && !text.startsWith('/');
  const nameDirectory = isRelative ? named.path.slice(0, -text.length - 1) || '/' : undefined;
  return { file: { mode, uid, gid }, deleted: named.deleted, nameDirectory, ownMake, leadsTo };
}

/** The path of a socket's file. */
export function socketPaths({ file, ownMake, name, nameDirectory }: UnixSocket): string[] {
  if (file === undefined) return [];
  if (ownMake !== undefined) return [ownMake.path];
  const text = Buffer.from(name).toString('utf8');
  return [nameDirectory === undefined ? text : `${nameDirectory.replace(/\/$/, '')}/${text}`];
}
