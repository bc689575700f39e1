import type { IoUring } from './io-uring.ts';
import type { FileIdentity, OpenFileCommon, OwnMake, PathFile, PhysicalRun } from './open-file.ts';
import type { PageRuns } from './page-runs.ts';
import type { InetSocket, NetlinkSocket, UnixSocket } from './socket.ts';
import type { Terminal, TerminalFile } from './terminal.ts';

/** One end of an unnamed pipe. */
export interface PipeFile extends OpenFileCommon {
  readonly type: 'pipe';
  readonly pipeId: number;
}

/** A named pipe; `path` is a file of its own, used only to find the name. */
export interface FifoFile extends OpenFileCommon {
  readonly type: 'fifo';
  readonly pipeId: number;
  readonly pathFile: PathFile;
  /**
   * Opened for reading without a writer, and none has come since: it must not see one while it is made again.
   */
  readonly waitsForWriter: boolean;
}

export interface EventFd extends OpenFileCommon {
  readonly type: 'eventfd';
  readonly count: bigint;
}

/** One `epoll_ctl(EPOLL_CTL_ADD)`. */
export interface EventPollTarget {
  /** Number of a descriptor, in every table that holds the epoll file, that is the watched file. */
  readonly fd: number;
  readonly fileId: number;
  readonly events: number;
  readonly data: bigint;
}

export interface EventPoll extends OpenFileCommon {
  readonly type: 'eventpoll';
  readonly targets: readonly EventPollTarget[];
}

/** An absolute timerfd on CLOCK_REALTIME, as it has to be set with the clock of the next kernel. */
export interface WallClockTimer {
  /** TFD_TIMER_* of timerfd_settime(2). */
  readonly flags: number;
  /** The time of day that it is set to, in nanoseconds since 1970; 0 means disarmed. */
  readonly expiresNanoseconds: bigint;
  /** As the kernel had counted them: of a periodic timer that waits to be read only the first. */
  readonly ticks: bigint;
  /** It is periodic and has gone off: what it misses is counted when it is read. */
  readonly waitsForRead: boolean;
}

export interface TimerFd extends OpenFileCommon {
  readonly type: 'timerfd';
  readonly clock: number;
  /** Expirations that were not read. */
  readonly ticks: bigint;
  /** TFD_TIMER_* but for TFD_TIMER_ABSTIME: `remainingNanoseconds` is relative. */
  readonly settimeFlags: number;
  /** 0 means disarmed. */
  readonly remainingNanoseconds: bigint;
  readonly intervalNanoseconds: bigint;
  readonly wallClock?: WallClockTimer;
}

export interface SignalFd extends OpenFileCommon {
  readonly type: 'signalfd';
  /** Bit N-1 set: signal N is accepted. */
  readonly mask: bigint;
}

export interface InotifyWatch {
  readonly wd: number;
  /** IN_* as given by the program. */
  readonly mask: number;
  readonly path: string;
  readonly inode: number;
  /** Device number of the file system, as stat(2) gives it. */
  readonly device: number;
}

export interface Inotify extends OpenFileCommon {
  readonly type: 'inotify';
  readonly watches: readonly InotifyWatch[];
}

/** A file made by memfd_create; its content is the SharedMemory `shmid`. */
export interface MemfdFile extends OpenFileCommon {
  readonly type: 'memfd';
  readonly position: bigint;
  readonly inodeId: number;
}

export type OpenFile =
  | PathFile
  | PipeFile
  | FifoFile
  | UnixSocket
  | InetSocket
  | NetlinkSocket
  | TerminalFile
  | EventFd
  | EventPoll
  | TimerFd
  | SignalFd
  | Inotify
  | IoUring
  | MemfdFile;

/** What memfd_create made; several open files can have the same one. */
export interface MemfdInode {
  readonly inodeId: number;
  readonly shmid: number;
  /** The name given to memfd_create. */
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
  readonly sizeBytes: number;
  /** F_SEAL_*. */
  readonly seals: number;
}

/** What is in a pipe. */
export interface Pipe {
  readonly id: number;
  readonly named: boolean;
  /** F_GETPIPE_SZ. */
  readonly capacityBytes: number;
  readonly data: readonly PhysicalRun[];
  readonly dataBytes: number;
}

/** Bytes of a file on a disk, to be copied from there to the same places of another one. */
export interface ContentOnDisk {
  readonly path: string;
  readonly inode: number;
  /** Ascending, not overlapping, none beyond the end. */
  readonly ranges: readonly { readonly offset: number; readonly length: number }[];
}

/** Content of a file that has no name any more. Bytes that neither a run nor `onDisk` holds are zero. */
export interface GhostFile {
  readonly id: number;
  readonly identity: FileIdentity;
  readonly accessedMicroseconds: number;
  readonly modifiedMicroseconds: number;
  readonly runs: PageRuns;
  /** What is in no memory, and a copy of the file has. */
  readonly onDisk?: ContentOnDisk;
  /** Set if CRIU is handed the file, and does not make it: of all that are open on it. */
  readonly ownMake?: OwnMake | undefined;
}

/** A lock on a file, as fcntl(2) and flock(2) set them. */
export interface FileLock {
  readonly kind: 'posix' | 'flock' | 'ofd';
  /** F_RDLCK 0 or F_WRLCK 1. */
  readonly type: number;
  readonly pid: number;
  readonly fd: number;
  readonly start: number;
  /** 0: to the end of the file. */
  readonly length: number;
}

export interface FileDescriptor {
  readonly fd: number;
  readonly fileId: number;
  readonly closeOnExec: boolean;
}

/** A `files_struct`; processes that share one have the same `filesId`. */
export interface FdTable {
  readonly filesId: number;
  readonly descriptors: readonly FileDescriptor[];
}

/** An extended attribute (an ACL is one) as setxattr(2) takes it. */
export interface ExtendedAttribute {
  readonly name: string;
  readonly value: Uint8Array;
}

/** A directory that has to exist before the restore, with its owner and mode. */
export interface DirectoryToMake {
  readonly path: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly attributes: readonly ExtendedAttribute[];
}

/** A file whose file system went with the old kernel and that is made again, with its content. */
export interface FileToMake {
  readonly path: string;
  readonly identity: FileIdentity;
  readonly accessedMicroseconds: number;
  readonly modifiedMicroseconds: number;
  readonly attributes: readonly ExtendedAttribute[];
  readonly runs: PageRuns;
}

/** A symbolic link that is made again. */
export interface SymlinkToMake {
  readonly path: string;
  readonly target: string;
  readonly uid: number;
  readonly gid: number;
}

/** Another name of a file that is made again. */
export interface NameToMake {
  readonly path: string;
  readonly of: string;
}

/** Everything with a name on memory file systems, whoever has it open. */
export interface TmpfsFiles {
  /** Parents before their children. */
  readonly directoriesToMake: readonly DirectoryToMake[];
  readonly filesToMake: readonly FileToMake[];
  readonly symlinksToMake: readonly SymlinkToMake[];
  readonly namesToMake: readonly NameToMake[];
}

/** A file or directory on a disk that must be the same one after the panic. */
export interface FileToCheck {
  readonly path: string;
  readonly identity: FileIdentity;
}

/** A directory on the way to a file, by what it is recognised. */
export interface DirectoryIdentity {
  readonly inode: number;
  readonly generation: number;
}

/** A file system, by what it is recognised when its device has another number. */
export interface FileSystemPlace {
  /** As statfs(2) gives it. */
  readonly magic: number;
  /** Hexadecimal; undefined if it has none. */
  readonly uuid: string | undefined;
  /** Number of its device at the panic, as stat(2) gives it. */
  readonly device: number;
}

/** A file on a disk with data that may not have been written to it. */
export interface UnwrittenFile {
  /** Absolute. */
  readonly path: string;
  /** The directories from the root to the file's own: one for each component of the path. */
  readonly directories: readonly DirectoryIdentity[];
  /** Address of the `struct dentry` of the file's own directory. */
  readonly directoryDentry: bigint;
  /** When a name in that directory was last made or taken away. */
  readonly directoryModifiedNanoseconds: bigint;
  /** Names that the file has. */
  readonly links: number;
  /** It has an access control list beyond its mode; undefined if memory does not tell. */
  readonly hasAcl: boolean | undefined;
  readonly fileSystem: FileSystemPlace;
  /** `sizeBytes` is the size that the file has to have. */
  readonly identity: FileIdentity;
  /** Sectors of 512 bytes that it takes; undefined where the file system keeps that number elsewhere. */
  readonly sectors: number | undefined;
  readonly accessedNanoseconds: bigint;
  readonly modifiedNanoseconds: bigint;
  /** Pages that the disk does not have; the last one may reach over the end of the file. */
  readonly dirty: PageRuns;
  /**
   * The other pages in memory, of a file that was changed so shortly before the panic that the journal may
   * not know yet where they are on the disk. Empty for other files.
   */
  readonly clean: PageRuns;
  /** The pages are the whole file, and no more: it can be made anew if the disk does not know it yet. */
  readonly isWhole: boolean;
}

/** All files of a group. */
export interface GroupFiles {
  readonly files: readonly OpenFile[];
  readonly tables: readonly FdTable[];
  readonly pipes: readonly Pipe[];
  readonly ghosts: readonly GhostFile[];
  readonly terminals: readonly Terminal[];
  readonly memfds: readonly MemfdInode[];
  readonly locks: readonly FileLock[];
  /** Parents before their children. */
  readonly directoriesToMake: readonly DirectoryToMake[];
  readonly filesToMake: readonly FileToMake[];
  readonly filesToCheck: readonly FileToCheck[];
  /**
   * Files on disks of which something may not have been written: all of it has to be there before they are
   * opened again.
   */
  readonly unwritten: readonly UnwrittenFile[];
}

/** A group without any file, for tests and for processes that have none. */
export const noFiles: GroupFiles = {
  files: [],
  tables: [],
  pipes: [],
  ghosts: [],
  terminals: [],
  memfds: [],
  locks: [],
  directoriesToMake: [],
  filesToMake: [],
  filesToCheck: [],
  unwritten: [],
};
