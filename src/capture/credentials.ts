import { type Cred, readCred } from '../linux/cred.ts';
import { apparmorLabel, selinuxInForce } from '../linux/lsm.ts';
import { hasNoNewPrivs, type Task } from '../linux/sched.ts';
import type { Credentials } from '../model/process.ts';
import type { Kernel } from '../vmcore/kernel.ts';

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
 * Credentials of a task. The objective and the subjective ones have to be the same: they differ only while the kernel acts with
 * others for the task. Throws a VmcoreError if they cannot be read.
 */
export function captureCredentials(kernel: Kernel, task: Task): CapturedCredentials {
  const problems: string[] = [];
  if (task.cred !== task.real_cred) problems.push('the kernel was acting with other credentials for it');
  const cred = readCred(kernel, task.real_cred);
  if (cred.userNamespace !== kernel.symbol('init_user_ns')) problems.push('is in a user namespace');
  if (cred.keyrings.thread !== 0n) problems.push('has a thread keyring');
  if (cred.keyrings.process !== 0n) problems.push('has a process keyring');
  const label = apparmorLabel(kernel, cred.security);
  if (label !== undefined && label !== 'unconfined') problems.push(`is confined by AppArmor (${label})`);
  if (selinuxInForce(kernel)) problems.push('has a label of SELinux');
  return { credentials: toModel(cred, task), problems };
}
