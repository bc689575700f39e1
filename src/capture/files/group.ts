import { isWritten } from '../../linux/writeback.ts';
import type { FdTable, FileLock, GroupFiles, OpenFile, UnwrittenFile } from '../../model/file.ts';
import type { SharedMemory } from '../../model/memory.ts';
import type { PathFile } from '../../model/open-file.ts';
import type { Terminal } from '../../model/terminal.ts';
import { readable, VmcoreError } from '../../vmcore/errors.ts';
import type { CaptureContext } from './context.ts';
import { FileRefusal } from './refusal.ts';
import { unwrittenFile } from './write-back.ts';

/** The path of every file that is opened by one. */
function pathsOf(files: readonly OpenFile[]): PathFile[] {
  return files.flatMap((file) => {
    if (file.type === 'path') return [file];
    return file.type === 'fifo' || file.type === 'terminal' ? [file.pathFile] : [];
  });
}

function unique<T>(items: readonly T[], key: (item: T) => string | number): T[] {
  return [...new Map(items.map((item) => [key(item), item])).values()];
}

/** A session that does not come back cannot have a controlling terminal. */
function withoutLostSession(
  context: CaptureContext,
  terminal: Terminal,
  pids: ReadonlySet<number>,
): Terminal {
  if (terminal.session === 0 || pids.has(terminal.session)) return terminal;
  const { session, ptyIndex } = terminal;
  const name = ptyIndex === undefined ? 'a terminal' : `/dev/pts/${ptyIndex}`;
  for (const pid of pids)
    context.note(pid, `${name} controlled session ${session}, whose leader is not protected`);
  return { ...terminal, session: 0, foregroundGroup: 0 };
}

function sharedMemoryOf(
  context: CaptureContext,
  files: readonly OpenFile[],
  pids: ReadonlySet<number>,
): SharedMemory[] {
  const shmids = new Set(
    files.flatMap((file) => (file.type === 'memfd' ? [context.memfds.get(file.inodeId)?.shmid ?? 0] : [])),
  );
  for (const [shmid, users] of context.memoryUsers) {
    if ([...users].some((pid) => pids.has(pid))) shmids.add(shmid);
  }
  return [...context.sharedMemory.values()].filter(({ shmid }) => shmids.has(shmid));
}

/** Whether a file that is on no disk exists before the restore: not those that it makes itself. */
function isThereBefore(context: CaptureContext, path: string, fileSystem: string): boolean {
  if (fileSystem === 'devpts' || /^\/proc\/\d+(\/|$)/.test(path)) return false;
  const made = context.toMake.has(path) || context.directories.get(path)?.some((made) => made.path === path);
  return made !== true;
}

/** What has to be there before the group is restored, and what has to be as it was. */
function preparation(
  context: CaptureContext,
  files: readonly OpenFile[],
): Pick<GroupFiles, 'directoriesToMake' | 'filesToMake' | 'filesToCheck' | 'unwritten'> {
  const paths = pathsOf(files);
  const present = paths.filter(({ ghostId }) => ghostId === undefined);
  const needed = [...paths.map(({ path }) => path), ...context.socketPaths(files)];
  const directories = unique(
    needed.flatMap((path) => context.directories.get(path) ?? []),
    ({ path }) => path,
  );
  return {
    directoriesToMake: directories.toSorted((a, b) => a.path.length - b.path.length),
    filesToMake: unique(
      present.flatMap(({ path }) => context.toMake.get(path) ?? []),
      ({ path }) => path,
    ),
    filesToCheck: unique(
      present
        .filter(({ path, identity }) => identity.onDisk || isThereBefore(context, path, identity.fileSystem))
        .map(({ path, identity }) => ({ path, identity })),
      ({ path }) => path,
    ),
    unwritten: unique(
      present.flatMap(({ path }) => unwrittenAt(context, path) ?? []),
      ({ path }) => path,
    ),
  };
}

/**
 * What of a file may be missing on its disk. Throws a FileRefusal if that cannot be told of a file that the kernel had not written:
 * what comes back would find an older content.
 */
function unwrittenAt(context: CaptureContext, path: string): UnwrittenFile | undefined {
  const { kernel, clocks } = context;
  const inode = context.inodesOnDisk.get(path);
  if (inode === undefined) return undefined;
  let problem: string;
  try {
    const file = unwrittenFile(kernel, inode, clocks);
    if (typeof file !== 'string') return file;
    problem = file;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    problem = error.message;
  }
  if (readable(() => isWritten(kernel, inode.address)) === true) return undefined;
  throw new FileRefusal(`uses ${path}, of which the disk may not have all: ${problem}`);
}

/** The part of a capture that belongs to a group of processes. Throws a FileRefusal if one of its files cannot come back as it was. */
export function groupFiles(
  context: CaptureContext,
  tables: ReadonlyMap<number, FdTable>,
  locks: readonly FileLock[],
  pids: ReadonlySet<number>,
): { files: GroupFiles; sharedMemory: SharedMemory[] } {
  const own = [...pids].flatMap((pid) => tables.get(pid) ?? []);
  const ids = new Set([
    ...own.flatMap(({ descriptors }) => descriptors.map(({ fileId }) => fileId)),
    ...[...pids].flatMap((pid) => [...context.usedBy(pid)]),
  ]);
  const files = [...context.files.values()].filter(({ id }) => ids.has(id));
  const pipeIds = new Set(
    files.flatMap((file) => (file.type === 'pipe' || file.type === 'fifo' ? [file.pipeId] : [])),
  );
  const terminalIds = new Set(files.flatMap((file) => (file.type === 'terminal' ? [file.terminalId] : [])));
  const memfdIds = new Set(files.flatMap((file) => (file.type === 'memfd' ? [file.inodeId] : [])));
  const ghostIds = new Set(pathsOf(files).map(({ ghostId }) => ghostId));
  return {
    files: {
      files,
      tables: unique(own, ({ filesId }) => filesId),
      pipes: [...context.pipes.values()].filter(({ id }) => pipeIds.has(id)),
      ghosts: [...context.ghosts.values()].filter(({ id }) => ghostIds.has(id)),
      terminals: [...context.terminals.values()]
        .filter(({ id }) => terminalIds.has(id))
        .map((terminal) => withoutLostSession(context, terminal, pids)),
      memfds: [...context.memfds.values()].filter(({ inodeId }) => memfdIds.has(inodeId)),
      locks: locks.filter(({ pid }) => pids.has(pid)),
      ...preparation(context, files),
    },
    sharedMemory: sharedMemoryOf(context, files, pids),
  };
}
