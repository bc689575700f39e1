import type { RingPart } from './io-uring.ts';
import type { PageRuns } from './page-runs.ts';

/**
 * Whole pages that the images get instead of the dead kernel's, or besides them; the area is a private one.
 */
export interface PageOverride {
  /** User address; a multiple of 4096. */
  readonly address: number;
  /** Whole pages. */
  readonly bytes: Uint8Array;
}

/** What a virtual memory area is; decides how it is rebuilt. */
export type VmaKind =
  | 'anonymous' // private anonymous, heap and stack included
  | 'file-private' // MAP_PRIVATE of a file: its own (copied) pages are stored, the others come from the file
  | 'file-shared' // MAP_SHARED of a file with a name or of a deleted one: the content is the file's
  | 'shared-memory' // MAP_SHARED | MAP_ANONYMOUS, /dev/zero or a memfd: the content is a SharedMemory
  | 'segment' // attached by shmat(2): the content is a SharedSegment
  | 'aio-ring' // the ring of a context of io_setup(2), shared with the kernel: its pages are stored as they are
  | 'io-uring' // shared memory of an io_uring: the content is the ring's
  | 'vdso'
  | 'vvar';

/** One virtual memory area. Addresses are user addresses (below 2^47, or 2^56 with five levels). */
export interface Vma {
  readonly start: number;
  readonly end: number;
  readonly kind: VmaKind;
  /** PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4. */
  readonly prot: number;
  /** Memory protection key of pkey_mprotect(2); 0 or undefined: none of its own. */
  readonly protectionKey?: number;
  /** VM_GROWSDOWN: the main thread's stack, mostly. */
  readonly growsDown: boolean;
  readonly heap: boolean;
  readonly stack: boolean;
  readonly hugetlb: boolean;
  /** As a whole (VM_LOCKED alone). */
  readonly locked: boolean;
  /** Each page when it is first used (MLOCK_ONFAULT of mlock2(2)). */
  readonly lockedOnFault?: boolean;
  readonly noReserve: boolean;
  /** Advice that stuck to the area, as the numbers of madvise(2): MADV_DONTFORK, MADV_HUGEPAGE ... */
  readonly advice: readonly number[];
  /** Offset of the first byte in the file or the shared memory, in bytes. */
  readonly offsetBytes: number;
  /** Id of the mapped file in the group's files (also for a memfd); undefined where there is none. */
  readonly fileId?: number;
  /** O_RDONLY (0) or O_RDWR (2): how a mapped file has to be opened again. */
  readonly fileOpenFlags?: number;
  /** Id of the SharedMemory behind the area. */
  readonly shmid?: number;
  /**
   * The System V shared memory segment behind the area, and whether it is attached for writing, whatever
   * `prot` is now.
   */
  readonly segment?: { readonly id: number; readonly isWritable: boolean };
  /** Of an area of an io_uring, which is `fileId`. */
  readonly ringPart?: RingPart;
  /** The area's own pages; none for file-shared, shared-memory and segment. */
  readonly runs: PageRuns;
}

/** An address space (`mm_struct`). */
export interface AddressSpace {
  /** Equal for tasks that share the address space. */
  readonly id: number;
  /** Id of the address space that it has the pages of, all of them: that of a parent in vfork. */
  readonly copyOf?: number | undefined;
  readonly startCode: number;
  readonly endCode: number;
  readonly startData: number;
  readonly endData: number;
  readonly startStack: number;
  readonly startBrk: number;
  readonly brk: number;
  readonly argStart: number;
  readonly argEnd: number;
  readonly envStart: number;
  readonly envEnd: number;
  readonly savedAuxv: readonly bigint[];
  /** MMF_DUMPABLE_MASK bits of mm->flags: 0, 1 or 2 as in PR_GET_DUMPABLE. */
  readonly dumpable: number;
  readonly thpDisabled: boolean;
  /** It has given up making memory executable (PR_SET_MDWE). */
  readonly refusesExecGain?: boolean;
  /** It locks whatever it maps (mlockall(2) with MCL_FUTURE): at once, or each page when it is first used. */
  readonly futureLock?: 'at-once' | 'on-fault' | undefined;
  /** /proc/PID/coredump_filter; undefined: the system's default. */
  readonly coredumpFilter?: number;
  /** Memory protection keys of pkey_alloc(2), rising. */
  readonly protectionKeys: readonly number[];
  /** Id of the executable in the group's files. */
  readonly exeFileId: number;
  readonly vmas: readonly Vma[];
  /** By rising address, not overlapping; a crash procedure's record and stack. */
  readonly overrides?: readonly PageOverride[];
}

/**
 * Memory that several areas or processes share and that has no other home than the dead kernel's page cache:
 * an anonymous shared mapping or a memfd. Pages that no run names are holes (zeros).
 */
export interface SharedMemory {
  readonly shmid: number;
  readonly origin: 'anonymous' | 'memfd';
  /** i_size of the inode. */
  readonly sizeBytes: number;
  /** `address` of a run is the offset in the object. */
  readonly runs: PageRuns;
}
