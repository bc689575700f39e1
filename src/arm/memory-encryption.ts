import { join } from 'node:path';
import { runningVmcoreinfo } from '../vmcore/take-profile.ts';
import { parseVmcoreinfo, vmcoreinfoNumber } from '../vmcore/vmcoreinfo.ts';
import type { Finding } from './finding.ts';

/**
 * The bit of page table entries that has memory encrypted: `sme_me_mask`, with AMD's SME as in SEV guests; 0
 * if there is none. /proc/cpuinfo does not tell: in a guest the kernel clears the flags of it
 * (early_detect_mem_encrypt in arch/x86/kernel/cpu/amd.c).
 * @returns undefined if the kernel does not show its VMCOREINFO
 */
function encryptionMask(root: string): number | undefined {
  const info = parseVmcoreinfo(runningVmcoreinfo(join(root, 'proc/kcore')));
  return vmcoreinfoNumber(info, 'NUMBER(sme_mask)');
}

/**
 * Why page tables that know nothing of encryption cannot be used: the end of a sentence; undefined if they
 * can.
 */
export function encryptionObstacle(root = '/'): string | undefined {
  const mask = encryptionMask(root);
  if (mask === undefined)
    return 'the kernel does not show whether memory is encrypted (sme_mask of VMCOREINFO, in /proc/kcore)';
  return mask === 0 ? undefined : 'memory is encrypted (SME or SEV), and stage zero reads it as it is';
}

/**
 * Whether the dead kernel's memory could be read: encrypted memory is not, and a crash kernel would bring
 * nothing back.
 */
export function memoryEncryption(root = '/'): Finding {
  const what = 'memory encryption';
  const mask = encryptionMask(root);
  if (mask === 0) return { what, state: 'good', found: 'off' };
  if (mask === undefined) {
    const todo =
      'if the kernel says "Memory Encryption Features active" in its log, no process would come back: boot with mem_encrypt=off';
    return { what, state: 'advice', found: 'not known, as the kernel does not show its VMCOREINFO', todo };
  }
  const todo =
    'such memory cannot be read after a panic, and no process would come back: boot with mem_encrypt=off; a machine ' +
    'whose host encrypts it (SEV) cannot be armed';
  return { what, state: 'missing', found: 'on (SME or SEV)', todo };
}

/** Why nothing would come back although the system is armed: a sentence; undefined if nothing is known. */
export function encryptionProblem(root = '/'): string | undefined {
  const { what, state, found, todo } = memoryEncryption(root);
  return state === 'missing' ? `${what} is ${found}: ${todo}` : undefined;
}
