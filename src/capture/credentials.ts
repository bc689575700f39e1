import { type Cred, readCred } from '../linux/cred.ts';
import { apparmorLabel, hasLandlockDomain, selinuxInForce } from '../linux/lsm.ts';
import { hasNoNewPrivs, type Task } from '../linux/sched.ts';
import type { Credentials } from '../model/process.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { lostKeys } from './task-attributes.ts';

/** Credentials, and reasons against restoring them. */
export interface CapturedCredentials {
  readonly credentials: Credentials;
  readonly problems: readonly string[];
}

function toModel(cred: Cred, task: Task): Credentials {
  const { capabilities } = cred;
  return {
    uid: cred.uid,
    gid: cred.gid,
    euid: cred.euid,
    egid: cred.egid,
    suid: cred.suid,
    sgid: cred.sgid,
    fsuid: cred.fsuid,
    fsgid: cred.fsgid,
    groups: cred.groups,
    capInheritable: capabilities.cap_inheritable,
    capPermitted: capabilities.cap_permitted,
    capEffective: capabilities.cap_effective,
    capBounding: capabilities.cap_bset,
    capAmbient: capabilities.cap_ambient,
    securebits: cred.securebits,
    noNewPrivs: hasNoNewPrivs(task),
  };
}

/**
 * Bits above the last capability that the kernel knows (`CAP_LAST_CAP`, 40 in 6.1 and 6.12) are never set.
 */
const KNOWN_CAPABILITIES = (1n << 41n) - 1n;

/** What the kernel itself keeps true of a task's capability sets (security/commoncap.c). */
function contradiction({ capabilities }: Cred): string | undefined {
  const { cap_effective, cap_permitted, cap_ambient, cap_inheritable } = capabilities;
  const all = Object.values(capabilities).reduce((bits, set) => bits | set, 0n);
  const fits = (part: bigint, whole: bigint) => (part & ~whole) === 0n;
  const sound =
    fits(all, KNOWN_CAPABILITIES) &&
    fits(cap_effective, cap_permitted) &&
    fits(cap_ambient, cap_permitted & cap_inheritable);
  return sound ? undefined : 'has capability sets that contradict each other';
}

/**
 * Credentials of a task. The objective and the subjective ones have to be the same: they differ only while
 * the kernel acts with others for the task. Throws a VmcoreError if they cannot be read.
 */
export function captureCredentials(kernel: Kernel, task: Task): CapturedCredentials {
  const problems: string[] = [];
  if (task.cred !== task.real_cred) problems.push('the kernel was acting with other credentials for it');
  const cred = readCred(kernel, task.real_cred);
  const wrong = contradiction(cred);
  if (wrong !== undefined) problems.push(wrong);
  if (cred.userNamespace !== kernel.symbol('init_user_ns')) problems.push('is in a user namespace');
  if (cred.keyrings.thread !== 0n) problems.push('has a thread keyring');
  if (cred.keyrings.process !== 0n) problems.push('has a process keyring');
  const keys = lostKeys(kernel, cred.keyrings.session);
  if (keys.length > 0) problems.push(`has keys in its session keyring (${keys.join(', ')})`);
  const label = apparmorLabel(kernel, cred.security);
  if (label !== undefined && label !== 'unconfined') problems.push(`is confined by AppArmor (${label})`);
  if (hasLandlockDomain(kernel, cred.security)) problems.push('has restricted itself with Landlock');
  if (selinuxInForce(kernel)) problems.push('has a label of SELinux');
  return { credentials: toModel(cred, task), problems };
}
