import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, optional, pointer, s16, s32, struct, u16, u32, type ViewOf } from '../vmcore/view.ts';
import type { SkBuff } from './skbuff.ts';

/** `struct unix_sock` (include/net/af_unix.h; this module is named after net/unix). */
export const unixSock = struct('unix_sock', {
  addr: pointer,
  mnt: pointer.at('path.mnt'),
  dentry: pointer.at('path.dentry'),
  peer: pointer,
  oob_skb: optional(pointer),
});

export type UnixSock = ViewOf<typeof unixSock>;

/** `struct unix_address`. */
export const unixAddress = struct('unix_address', { len: s32, name: addressOf('name') });
/** `struct unix_skb_parms`, `cb` of a buffer. */
export const unixSkbParms = struct('unix_skb_parms', { pid: pointer, fp: pointer, consumed: u32 });
/** `struct scm_fp_list` (include/net/scm.h). */
export const scmFpList = struct('scm_fp_list', { count: s16, fp: addressOf('fp') });
/** `struct sockaddr_un` (include/uapi/linux/un.h). */
export const sockaddrUn = struct('sockaddr_un', { sun_family: u16 });

/** UNIX_PATH_MAX of include/uapi/linux/un.h. */
const UNIX_PATH_MAX = 108;
/** SCM_MAX_FD of include/net/scm.h. */
const SCM_MAX_FD = 253;

/**
 * The bound name: sun_path without the terminating zero of a path; empty if not bound. Throws a
 * ContainerError if its length is impossible or the family is not AF_UNIX.
 */
export function unixName(kernel: Kernel, sock: UnixSock): Uint8Array {
  if (sock.addr === 0n) return new Uint8Array(0);
  const { len, name } = kernel.bind(unixAddress).at(sock.addr);
  if (len < 2 || len > UNIX_PATH_MAX + 2 || kernel.bind(sockaddrUn).at(name).sun_family !== 1) {
    throw new ContainerError('unix_address', sock.addr, `has ${len} bytes`);
  }
  const path = kernel.memory.read(name + 2n, len - 2);
  if (path[0] === 0 || path.length === 0) return path;
  const end = path.indexOf(0);
  return end < 0 ? path : path.subarray(0, end);
}

/** A unix name as people write it: `@name` for an abstract one. */
export function showUnixName(name: Uint8Array): string {
  const text = Buffer.from(name).toString('utf8');
  return name[0] === 0 ? `@${text.slice(1).replaceAll('\0', '@')}` : text;
}

/** What travels with a buffer besides its bytes. */
export interface UnixControl {
  /** Bytes at the front that a stream's reader has already taken. */
  readonly consumed: number;
  /** Addresses of the files in an SCM_RIGHTS message. */
  readonly files: readonly bigint[];
}

/**
 * The control block of a buffer in a unix socket's queue. Throws a ContainerError on an impossible number of
 * files.
 */
export function unixControl(kernel: Kernel, skb: SkBuff): UnixControl {
  const { fp, consumed } = kernel.bind(unixSkbParms).at(skb.cb);
  if (fp === 0n) return { consumed, files: [] };
  const list = kernel.bind(scmFpList).at(fp);
  const count = list.count;
  if (count < 0 || count > SCM_MAX_FD) throw new ContainerError('scm_fp_list', fp, `has ${count} files`);
  const pointers = kernel.memory.read(list.fp, count * 8);
  return { consumed, files: Array.from({ length: count }, (_, i) => pointers.readBigUInt64LE(i * 8)) };
}
