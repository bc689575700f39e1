import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, s32, struct, u32 } from '../vmcore/view.ts';

/**
 * `struct cred` (include/linux/cred.h). A capability set is one 64-bit word since 6.3 and two 32-bit words
 * before, which is the same bytes.
 */
export const credStruct = struct('cred', {
  uid: u32,
  gid: u32,
  suid: u32,
  sgid: u32,
  euid: u32,
  egid: u32,
  fsuid: u32,
  fsgid: u32,
  securebits: u32,
  user_ns: pointer,
  group_info: pointer,
  session_keyring: pointer,
  process_keyring: pointer,
  thread_keyring: pointer,
  security: pointer,
});

const capabilitySets = [
  'cap_inheritable',
  'cap_permitted',
  'cap_effective',
  'cap_bset',
  'cap_ambient',
] as const;
type CapabilitySet = (typeof capabilitySets)[number];

export const groupInfoStruct = struct('group_info', { ngroups: s32 });

/** NGROUPS_MAX (include/uapi/linux/limits.h). */
const NGROUPS_MAX = 65536;

/** Credentials of a task as numbers of the initial user namespace. */
export interface Cred {
  readonly uid: number;
  readonly gid: number;
  readonly suid: number;
  readonly sgid: number;
  readonly euid: number;
  readonly egid: number;
  readonly fsuid: number;
  readonly fsgid: number;
  readonly securebits: number;
  /** Address of the user namespace. */
  readonly userNamespace: bigint;
  /** Supplementary groups, ascending as the kernel keeps them. */
  readonly groups: readonly number[];
  readonly capabilities: Readonly<Record<CapabilitySet, bigint>>;
  /** Addresses of the keyrings, 0n where there is none. */
  readonly keyrings: { readonly session: bigint; readonly process: bigint; readonly thread: bigint };
  /** Address of the security blob. */
  readonly security: bigint;
}

function readGroups(kernel: Kernel, address: bigint): number[] {
  const info = kernel.bind(groupInfoStruct);
  const count = info.at(address).ngroups;
  if (count < 0 || count > NGROUPS_MAX)
    throw new ContainerError('group_info', address, `has ${count} groups`);
  const gids = kernel.memory.read(address + BigInt(info.offsetOf('gid')), count * 4);
  return Array.from({ length: count }, (_, i) => gids.readUInt32LE(i * 4));
}

/** Reads a `struct cred`. Throws a VmcoreError if it, or the group list, is not believable. */
export function readCred(kernel: Kernel, address: bigint): Cred {
  const type = kernel.bind(credStruct);
  const cred = type.at(address);
  const set = (name: CapabilitySet) => kernel.memory.u64(address + BigInt(type.offsetOf(name)));
  return {
    uid: cred.uid,
    gid: cred.gid,
    suid: cred.suid,
    sgid: cred.sgid,
    euid: cred.euid,
    egid: cred.egid,
    fsuid: cred.fsuid,
    fsgid: cred.fsgid,
    securebits: cred.securebits,
    userNamespace: cred.user_ns,
    groups: readGroups(kernel, cred.group_info),
    capabilities: {
      cap_inheritable: set('cap_inheritable'),
      cap_permitted: set('cap_permitted'),
      cap_effective: set('cap_effective'),
      cap_bset: set('cap_bset'),
      cap_ambient: set('cap_ambient'),
    },
    keyrings: { session: cred.session_keyring, process: cred.process_keyring, thread: cred.thread_keyring },
    security: cred.security,
  };
}
