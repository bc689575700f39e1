import type { ProcessGroup, SharingEdge } from '../model/group.ts';
import type { Loss, UnexpectedLoss } from '../model/loss.ts';
import type { Vma } from '../model/memory.ts';
import type { Moment, Repair } from '../model/verdict.ts';

/** A process whose files are to be captured. */
export interface FileTask {
  readonly pid: number;
  /** Address of the thread-group leader's task_struct. */
  readonly task: bigint;
  /** Equal for processes that share the files_struct (CLONE_FILES); names the image fdinfo-FILESID.img. */
  readonly filesId: number;
}

/** Processes that were ending at the panic, and have ended: what they had is closed and unmapped. */
export interface EndedTasks {
  /** Addresses of their thread-group leaders' task_struct, and of those of all threads. */
  readonly leaders: ReadonlySet<bigint>;
  readonly threads: ReadonlySet<bigint>;
  /** Addresses of their mm_struct; others may have it as well (vfork). */
  readonly spaces: ReadonlySet<bigint>;
}

export const noneEnded: EndedTasks = { leaders: new Set(), threads: new Set(), spaces: new Set() };

/** A regular file of a disk, as it is after the panic; open until `close`. */
export interface DiskFile {
  readonly inode: number;
  /** S_IFMT and permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly modifiedNanoseconds: bigint;
  /** The bytes from `offset` on; undefined if there are fewer, or the disk cannot read them. */
  read(offset: number, length: number): Buffer | undefined;
  close(): void;
}

/** The disks of the dead system, where they are mounted. */
export interface Disks {
  /** A regular file by its path; undefined if there is none, or a symbolic link is on the way. */
  open(path: string): DiskFile | undefined;
}

/** What an area is by its `vm_area_struct.vm_file`. */
export type MappedFile =
  | Pick<Vma, 'kind' | 'fileId' | 'shmid' | 'segment' | 'ringPart'>
  | ({ readonly kind: 'refused' } & FileReason);

/** Why a file cannot be brought back, and what makes that one of the moment. */
export interface FileReason {
  readonly reason: string;
  readonly moment?: Moment | undefined;
  /** No sound kernel has it. */
  readonly isDamage?: boolean;
}

/** How a mapping uses its file, for the access mode it is opened with again. */
export interface MappingUse {
  readonly pid: number;
  /** VM_SHARED or VM_MAYSHARE. */
  readonly shared: boolean;
  /** O_RDONLY 0 or O_RDWR 2: what the mapping needs (VM_MAYWRITE of a shared mapping needs O_RDWR). */
  readonly openFlags: number;
  /**
   * User addresses of the area, the place of its first byte in the file, PROT_READ 1 | PROT_WRITE 2 |
   * PROT_EXEC 4.
   */
  readonly start: number;
  readonly end: number;
  readonly offsetBytes: number;
  readonly prot: number;
  /** Kept in memory by mlock(2). */
  readonly locked: boolean;
}

/**
 * The capture of files as the capture of processes sees it; made by `captureFiles` of src/capture/files for
 * all protected processes at once.
 */
export interface FileCapture {
  /** Pairs of processes that share a pipe, a socket pair, a pty, an open file ... */
  readonly edges: readonly SharingEdge[];
  /** Pairs of processes of which each comes back at its own time, and only if the other one may. */
  readonly dependences: readonly SharingEdge[];
  /** Reasons against single processes, by pid, found in their file tables. */
  readonly refusals: ReadonlyMap<number, readonly string[]>;
  /** The same that are of the moment. */
  readonly refusalsForNow: ReadonlyMap<number, readonly FileReason[]>;
  /** Facts for the report that change nothing, by pid; complete once all mappings have been asked for. */
  readonly notes: ReadonlyMap<number, readonly string[]>;
  /** What is lost of files and delivered as a failure, by pid. */
  readonly losses: ReadonlyMap<number, readonly Loss[]>;
  /** What is lost of them though no program expects it, of processes for their procedure alone. */
  readonly unexpected: ReadonlyMap<number, readonly UnexpectedLoss[]>;
  /** What was not believed of files, by pid. */
  readonly repairs: ReadonlyMap<number, readonly Repair[]>;
  /** The file behind a mapping; the same struct file gives the same ids every time. */
  mappedFile(file: bigint, use: MappingUse): MappedFile;
  /**
   * What of the rings of a process (io_uring) cannot be had again, once all mappings have been asked for.
   *
   * @param waits of its threads; see `waitsForFiles`
   */
  ringProblems(pid: number, vmas: readonly Vma[], waits: readonly (number | undefined)[]): readonly string[];
  /** Seconds in which a process makes its rings again; 0 if it has none. */
  ringSeconds(pid: number, vmas: readonly Vma[]): number;
  /** File id of an executable (`mm->exe_file`). Throws a typed error with the reason if it cannot be had. */
  exeFile(file: bigint, pid: number): number;
  /** File id of a directory (`fs->root`, `fs->pwd`): address of the struct path. Throws as `exeFile`. */
  directory(path: bigint, pid: number): number;
  /**
   * Files of a group and what else it shares, once the groups are known and all mappings have been asked for.
   */
  group(pids: ReadonlySet<number>): Omit<ProcessGroup, 'id' | 'freePid' | 'processes' | 'clocks'>;
}
