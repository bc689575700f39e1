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

/** Whether the dead kernel's memory could be read: a dump of encrypted memory is not. */
export function memoryEncryption(root = '/'): Finding {
  const what = 'memory encryption';
  const mask = encryptionMask(root);
  if (mask === undefined) return { what, state: 'good', found: 'none that is known of' };
  if (mask === 0) return { what, state: 'good', found: 'off' };
  const todo =
    'boot with mem_encrypt=off if the machine allows it: such memory cannot be read after a panic, and no process ' +
    'would come back';
  return { what, state: 'advice', found: 'on (SME or SEV)', todo };
}
