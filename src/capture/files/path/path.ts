import { inodePaths } from '../../../linux/dcache.ts';
import { isDnotified } from '../../../linux/dnotify.ts';
import { filePosition, fmode, openFlags } from '../../../linux/file.ts';
import { type File, major, minor } from '../../../linux/fs.ts';
import type { PathFile } from '../../../model/open-file.ts';
import { fileType, typeOf } from '../../../system/file-mode.ts';
import { isFilledAtBoot } from '../../../system/file-systems.ts';
import { fileToMake, ghostOf } from '../content/content.ts';
import type { CaptureContext } from '../context.ts';
import { noteSwapped } from '../memory/swap-note.ts';
import {
  attributesOf,
  directoriesAbove,
  isKernelFileSystem,
  isMemoryFileSystem,
  type NamedFile,
  namedFile,
} from '../named.ts';
import { FileRefusal } from '../refusal.ts';
import { checkCgroup } from './cgroup-file.ts';
import { pathFilesOf } from './path-files.ts';
import { hasRead, pressureTrigger } from './pressure.ts';
import { deletedToMake } from './roots-alone.ts';

/**
 * MEM_MAJOR, and of its devices those that hold nothing of their own: null, zero, full, random, urandom,
 * kmsg.
 */
const MEM_MAJOR = 1;
const plainMemoryDevices: ReadonlySet<number> = new Set([3, 5, 7, 8, 9, 11]);
const KMSG_MINOR = 11;

function checkDevice(file: NamedFile): void {
  const { i_mode: mode, i_rdev: rdev } = file.inode;
  const type = typeOf(mode);
  const number = `${major(rdev)}:${minor(rdev)}`;
  if (type === fileType.block) throw new FileRefusal(`has the block device ${file.path} (${number}) open`);
  if (type === fileType.character && !(major(rdev) === MEM_MAJOR && plainMemoryDevices.has(minor(rdev)))) {
    throw new FileRefusal(`has the device ${file.path} (${number}) open, whose state is in its driver`);
  }
}

/** Files in /proc belong to a process: only those of processes that come back can be opened again. */
function checkProc(context: CaptureContext, file: NamedFile): void {
  if (file.fileSystem.name !== 'proc') return;
  const pid = /^\/proc\/(\d+)(\/|$)/.exec(file.path)?.[1];
  if (pid !== undefined && !context.tasks.has(Number(pid))) {
    throw new FileRefusal(`has ${file.path} open, and that process is not protected`);
  }
}

/** Where a file is to be found: its own path, another name of the same inode, or nowhere (a ghost). */
function placeOf(context: CaptureContext, file: NamedFile): Pick<PathFile, 'path' | 'ghostId' | 'isOwnMake'> {
  const { kernel } = context;
  if (!file.deleted) return { path: file.path, ghostId: undefined };
  if (file.inode.i_nlink > 0) {
    const [other] = inodePaths(kernel, file.inode.address, file.namespace);
    if (other !== undefined) return { path: other.path, ghostId: undefined };
    if (typeOf(file.inode.i_mode) !== fileType.directory) {
      throw new FileRefusal(
        `has ${file.path} open, which was unlinked while it has another name that is not known`,
      );
    }
  }
  if (!file.fileSystem.onDisk && !isMemoryFileSystem(file.fileSystem.name)) {
    throw new FileRefusal(`has ${file.path} open, which no longer exists on ${file.fileSystem.name}`);
  }
  const ownMake = deletedToMake(context, file);
  const { ghosts } = pathFilesOf(context, file.namespace);
  let ghost = ghosts.get(file.inode.address);
  if (ghost === undefined) {
    ghost = { ...ghostOf(kernel, file, context.nextId(), context.disks), ownMake };
    ghosts.set(file.inode.address, ghost);
  }
  return { path: file.path, ghostId: ghost.id, ...(ghost.ownMake === undefined ? {} : { isOwnMake: true }) };
}

/**
 * Whether a file of a sandbox is there before the group's own files are made: the service manager makes the
 * devices of a sandbox, and what has a name outside of it, on what no boot fills anew, is made with all that
 * nobody has open.
 */
function isMadeOutside({ kernel, sandboxes }: CaptureContext, file: NamedFile): boolean {
  if (sandboxes.unitOf(file.namespace) === undefined || file.deleted) return false;
  if (typeOf(file.inode.i_mode) === fileType.character) return true;
  return inodePaths(kernel, file.inode.address).some(({ path }) => !isFilledAtBoot(path));
}

/** Notes what has to be made before a file on a memory file system can be opened again. */
function remember(context: CaptureContext, file: NamedFile, path: string): void {
  const { kernel } = context;
  if (!isMemoryFileSystem(file.fileSystem.name)) return;
  const isDirectory = typeOf(file.inode.i_mode) === fileType.directory;
  const isRoot = file.dentry === file.mount.mnt_root;
  if (isMadeOutside(context, file)) return;
  const { directories, toMake } = pathFilesOf(context, file.namespace);
  if (!directories.has(path)) {
    directories.set(path, directoriesAbove(kernel, file, isDirectory && !isRoot && !file.deleted));
  }
  if (!isDirectory && !file.deleted && !toMake.has(path)) {
    toMake.set(path, fileToMake(kernel, file));
  }
}

function positionOf(file: File, named: NamedFile): bigint | undefined {
  const { i_rdev: rdev } = named.inode;
  const isKmsg = major(rdev) === MEM_MAJOR && minor(rdev) === KMSG_MINOR;
  if ((file.f_mode & fmode.path) !== 0 || isKmsg || (file.f_mode & fmode.lseek) === 0) return undefined;
  const position = filePosition(file);
  if (position < 0n) throw FileRefusal.damaged(`has ${named.path} open at the impossible offset ${position}`);
  return position;
}

/** Memory of a process, and what there is of each of its pages: their positions are addresses. */
const byAddress = /^\/proc\/\d+\/(task\/\d+\/)?(mem|pagemap)$/;

/**
 * What the kernel writes while it is read, and the entries of a directory in memory, are not the same again:
 * whoever had read a part of it goes on in another text.
 */
function noteReadInPart(context: CaptureContext, file: File, named: NamedFile, position: bigint): void {
  const { path, inode, fileSystem } = named;
  if (position === 0n || (file.f_mode & fmode.read) === 0 || byAddress.test(path)) return;
  const type = typeOf(inode.i_mode);
  const isDirectory = type === fileType.directory;
  const isText = type === fileType.regular && isKernelFileSystem(fileSystem.name);
  if (!isText && !(isDirectory && !fileSystem.onDisk)) return;
  const holders = context.system.holdersOfFile(file.address);
  context.noteHolders(
    holders,
    isDirectory
      ? `the directory ${path} is open beyond its first entry and is made anew: read on from there, entries can be missing or come twice`
      : `${path} is open at byte ${position} and is written anew: read on from there, it need not fit what was read before`,
  );
}

/** CRIU makes deleted files without their ACLs and other attributes. */
function noteAttributes(context: CaptureContext, file: File, { fileSystem, inode, path }: NamedFile): void {
  if (attributesOf(context.kernel, fileSystem, inode.address).length === 0) return;
  const holders = context.system.holdersOfFile(file.address);
  context.noteHolders(holders, `the deleted file ${path} has lost its extended attributes`);
}

/** Notes what of a file in memory is in swap. */
export function noteContent(context: CaptureContext, named: NamedFile, pids: Iterable<number>): void {
  if (isMemoryFileSystem(named.fileSystem.name))
    noteSwapped(context, named.inode.i_mapping, named.path, pids);
}

/**
 * An open file that is opened again by its path, or brought back as a ghost. Throws a FileRefusal if that
 * cannot be, a VmcoreError if its structures are damaged.
 */
export function capturePathFile(context: CaptureContext, file: File): PathFile {
  const holders = context.system.holdersOfFile(file.address);
  const named = namedFile(context, file.f_mnt, file.f_dentry, context.namespaceOfHolders(holders));
  if (named.inode.address !== file.f_inode) {
    throw FileRefusal.damaged(`has ${named.path} open, whose inode is not the one of its directory entry`);
  }
  if ((file.f_flags & openFlags.path) === 0) checkDevice(named);
  checkProc(context, named);
  if (isDnotified(context.kernel, file.address, file.f_inode))
    throw new FileRefusal(`has ${named.path} open and watches it by signals (F_NOTIFY)`);
  const position = positionOf(file, named);
  const trigger = pressureTrigger(context.kernel, file, named);
  if (position !== undefined && (trigger === undefined || hasRead(trigger, position)))
    noteReadInPart(context, file, named, position);
  const captured = pathFile(context, named, { ...context.common(file), position });
  if (captured.ghostId !== undefined) noteAttributes(context, file, named);
  if (trigger?.isTold === true)
    context.noteHolders(holders, `an event of ${named.path} that nobody had read is lost`);
  noteContent(
    context,
    named,
    holders.map(({ pid }) => pid),
  );
  return trigger === undefined ? captured : { ...captured, pressureTrigger: trigger.text };
}

/** The same for a directory entry without an open file: a mapping, an executable, a working directory. */
export function pathFile(
  context: CaptureContext,
  named: NamedFile,
  rest: Pick<PathFile, 'id' | 'flags' | 'owner' | 'position'>,
): PathFile {
  const place = placeOf(context, named);
  const { path, ghostId } = place;
  checkCgroup(context, named, rest.flags);
  remember(context, named, path);
  if (named.fileSystem.onDisk && ghostId === undefined)
    pathFilesOf(context, named.namespace).inodesOnDisk.set(path, named.inode);
  return { type: 'path', ...rest, ...place, identity: named.identity };
}

/** What holders of a file who do not come back together no longer share: where they are in it. */
export function noteOffset({ path, position }: PathFile, outsider: string): string | undefined {
  const isMoved = position !== undefined && position > 0n;
  return isMoved ? `the offset of ${path} is no longer shared with ${outsider}` : undefined;
}
