/** A mount as the processes of a mount namespace see it. */
export interface SandboxMount {
  /** From the root of the namespace. */
  readonly path: string;
  /** Name of the file system type. */
  readonly type: string;
  /** What of the file system is seen there: a path in it. */
  readonly root: string;
  /** What it does not allow, and how it propagates: bits of {@link mountLimits}. */
  readonly limits: number;
  /** What a /proc hides (`hidepid=invisible,subset=pid`); empty for other file systems. */
  readonly options: string;
  /** Nothing outside of the namespace shows its file system. */
  readonly isOwn: boolean;
}

/**
 * What a mount can forbid, and its propagation (mount_namespaces(7)): `unshared` passes on to nobody what is
 * mounted below it, `slave` gets what is mounted below its master.
 */
export const mountLimits = {
  readOnly: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  nosymfollow: 16,
  unshared: 32,
  slave: 64,
  unbindable: 128,
} as const;

/** A directory that systemd makes for each start of a unit (`PrivateTmp=`). */
export interface PrivateDirectory {
  /** Where the unit has it: `/tmp`. */
  readonly path: string;
  /** Where it was outside of the sandbox. */
  readonly from: string;
}

/** The namespaces that systemd had made for a unit, and that all processes of a group were in. */
export interface Sandbox {
  readonly unit: string;
  /** The last one of each path is the one that is seen. */
  readonly mounts: readonly SandboxMount[];
  /** The same of the initial mount namespace at the same time. */
  readonly outside: readonly SandboxMount[];
  /** Its own host name (`ProtectHostname=`); undefined if it was the system's. */
  readonly hostName?: { readonly node: string; readonly domain: string } | undefined;
  /**
   * Settings of its own IPC namespace (`PrivateIPC=`), which had nothing in it, by the file below /proc/sys;
   * undefined if it was the system's.
   */
  readonly ipc?: Readonly<Record<string, string>> | undefined;
  readonly privateDirectories: readonly PrivateDirectory[];
}
