/** Bytes in one piece in old memory: a `PhysicalRange` of src/vmcore, of which the model knows nothing. */
export interface PhysicalRun {
  readonly physical: number;
  readonly length: number;
}

/** Who gets SIGIO for an open file (`struct fown_struct`); all zero if nobody asked for it. */
export interface FileOwner {
  readonly uid: number;
  readonly euid: number;
  /** F_SETSIG; 0 stands for SIGIO. */
  readonly signal: number;
  /** F_OWNER_TID 0, F_OWNER_PID 1, F_OWNER_PGRP 2. */
  readonly pidType: number;
  /** 0: no owner. */
  readonly pid: number;
}

/** What every open file (`struct file`) has. */
export interface OpenFileCommon {
  /** Unique in one capture and at least 1; shared by all descriptors of the same struct file. */
  readonly id: number;
  /** `f_flags`: access mode and O_* status flags; close-on-exec belongs to the descriptor. */
  readonly flags: number;
  readonly owner: FileOwner;
}

/** By what a file is recognised on the disk after the panic. */
export interface FileIdentity {
  /** `s_type->name` of its file system: ext4, xfs, tmpfs ... */
  readonly fileSystem: string;
  /**
   * True where the content is on a disk; false where it went with the old kernel (tmpfs, devtmpfs, proc ...).
   */
  readonly onDisk: boolean;
  readonly inode: number;
  readonly generation: number;
  /** S_IFMT and permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  /** Of a device node: its number as stat(2) gives it; 0 otherwise. */
  readonly rdev: number;
}

/**
 * What this program makes, and not CRIU, which would do it by its path, or its name: others than root can
 * write to a directory on the way, or the file of a socket was renamed.
 */
export interface OwnMake {
  /** Where it is, or was. A socket may be bound to another name, or to one that leads there through links. */
  readonly path: string;
  readonly identity: FileIdentity;
  /** The directory that it is in, or was. */
  readonly directory: FileIdentity;
}

/** A regular file, directory or simple device that is opened again by its path. */
export interface PathFile extends OpenFileCommon {
  readonly type: 'path';
  /** Absolute, from the root of the initial mount namespace. */
  readonly path: string;
  /**
   * File offset in bytes, of a directory any 63-bit number; undefined where the file has none (O_PATH,
   * streams).
   */
  readonly position: bigint | undefined;
  readonly identity: FileIdentity;
  /** The file has no name any more; its content is this ghost. */
  readonly ghostId: number | undefined;
  /** What is written to a file of pressure, to be told of it: `some 150000 1000000` (microseconds). */
  readonly pressureTrigger?: string | undefined;
  /** The ghost is made by this program; see `GhostFile`. */
  readonly isOwnMake?: true;
}
