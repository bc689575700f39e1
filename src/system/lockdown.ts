import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ifThere } from './proc.ts';

/** How the kernel is locked down: `integrity` or `confidentiality`; undefined if it is not. */
export function lockdownMode(root = '/'): string | undefined {
  const text = ifThere(() => readFileSync(join(root, 'sys/kernel/security/lockdown'), 'utf8'));
  const mode = /\[(\w+)\]/.exec(text ?? '')?.[1];
  return mode === 'none' ? undefined : mode;
}
