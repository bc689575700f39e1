import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, s32, struct, u8 } from '../vmcore/view.ts';

/** Offsets of each security module's part in the blobs that modules share (include/linux/lsm_hooks.h). */
export const blobSizes = struct('lsm_blob_sizes', { lbs_cred: s32 });
/** `struct aa_label` (security/apparmor/include/label.h). */
export const aaLabel = struct('aa_label', { hname: pointer });
/** `struct aa_ns` (security/apparmor/include/policy_ns.h). */
export const aaNamespace = struct('aa_ns', { unconfined: pointer });
/** `struct landlock_cred_security` (security/landlock/cred.h). */
export const landlockCredSecurity = struct('landlock_cred_security', { domain: pointer });
/** `struct selinux_state` (security/selinux/include/security.h). */
export const selinuxState = struct('selinux_state', { initialized: u8 });

/** Longest profile name that is read for a message. */
const MAX_NAME = 256;

/**
 * AppArmor label of a `struct cred` as `/proc/PID/attr/current` shows it: `unconfined` is what programs
 * without a profile have. Undefined if AppArmor is not in the kernel or not in force.
 */
export function apparmorLabel(kernel: Kernel, security: bigint): string | undefined {
  const sizes = kernel.symbolMaybe('apparmor_blob_sizes');
  const namespace = kernel.symbolMaybe('root_ns');
  if (sizes === undefined || namespace === undefined || security === 0n) return undefined;
  const root = kernel.memory.pointer(namespace);
  if (root === 0n) return undefined;
  const offset = kernel.bind(blobSizes).at(sizes).lbs_cred;
  const label = kernel.memory.pointer(security + BigInt(offset));
  const unconfined = kernel.bind(aaNamespace).at(root).unconfined;
  const labelOffset = kernel.layouts.member('aa_profile', 'label')?.offsetBytes;
  if (labelOffset !== undefined && label === unconfined + BigInt(labelOffset)) return 'unconfined';
  if (label === 0n) return undefined;
  const { hname } = kernel.bind(aaLabel).at(label);
  return hname === 0n ? 'a profile without a name' : kernel.memory.cstring(hname, MAX_NAME);
}

/** Whether SELinux has loaded a policy. */
export function selinuxInForce(kernel: Kernel): boolean {
  const state = kernel.symbolMaybe('selinux_state');
  if (state === undefined || !kernel.hasMember('selinux_state', 'initialized')) return false;
  return kernel.bind(selinuxState).at(state).initialized !== 0;
}

/** Whether a `struct cred` is restricted by Landlock; `security` is its blob. */
export function hasLandlockDomain(kernel: Kernel, security: bigint): boolean {
  const sizes = kernel.symbolMaybe('landlock_blob_sizes');
  const initialized = kernel.symbolMaybe('landlock_initialized');
  if (sizes === undefined || security === 0n || initialized === undefined) return false;
  if (kernel.memory.u8(initialized) === 0) return false;
  const offset = kernel.bind(blobSizes).at(sizes).lbs_cred;
  return kernel.bind(landlockCredSecurity).at(security + BigInt(offset)).domain !== 0n;
}
