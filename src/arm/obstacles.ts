import { closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { lockdownMode } from '../system/lockdown.ts';
import { findProgram, runProgram } from './command.ts';
import { ArmError } from './errors.ts';
import type { Finding } from './finding.ts';
import { memoryEncryption } from './memory-encryption.ts';

/**
 * Why the running kernel would take no crash kernel, or could not be read by one: looked at before anything
 * is built.
 */
export function obstacles(image: string, root = '/'): Finding[] {
  return [loadingAllowed(root), symbolsShown(root), memoryEncryption(root), lockdown(image, root)];
}

/** @throws ArmError naming everything that keeps the running kernel from being armed */
export function requireNoObstacle(image: string): void {
  const found = obstacles(image).filter(({ state }) => state === 'missing');
  if (found.length === 0) return;
  throw new ArmError(found.map(({ what, found: is, todo }) => `${what}: ${is}; ${todo}`).join('\n'));
}

function text(root: string, path: string): string | undefined {
  const file = join(root, path);
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : undefined;
}

/**
 * kernel.kexec_load_disabled, and since 6.3 the number of loads that are left (kernel.kexec_load_limit_panic;
 * -1: any number).
 */
function loadingAllowed(root: string): Finding {
  const what = 'loading a crash kernel';
  const todo = 'take it out of /etc/sysctl.conf and /etc/sysctl.d, and reboot: it cannot be switched back';
  for (const [name, barred] of [
    ['kexec_load_disabled', '1'],
    ['kexec_load_limit_panic', '0'],
  ] as const) {
    if (text(root, `proc/sys/kernel/${name}`) === barred)
      return { what, state: 'missing', found: `kernel.${name} is ${barred}`, todo };
  }
  return { what, state: 'good', found: 'is allowed' };
}

/** The start of /proc/kallsyms: some lines of address, type and name. */
const FIRST_SYMBOLS_BYTES = 4096;

/** The kernel hides addresses by showing zeros: from everybody if kernel.kptr_restrict is 2. */
function symbolsShown(root: string): Finding {
  const what = "the kernel's symbols";
  const first = Buffer.alloc(FIRST_SYMBOLS_BYTES);
  const fd = openSync(join(root, 'proc/kallsyms'), 'r');
  try {
    readSync(fd, first, 0, first.length, 0);
  } finally {
    closeSync(fd);
  }
  if (/^0*[1-9a-f][0-9a-f]* /m.test(first.toString('latin1')))
    return { what, state: 'good', found: 'their addresses are shown' };
  const restriction = text(root, 'proc/sys/kernel/kptr_restrict');
  const found = `/proc/kallsyms shows no addresses (kernel.kptr_restrict is ${restriction ?? 'unknown'})`;
  return {
    what,
    state: 'missing',
    found,
    todo: 'sysctl kernel.kptr_restrict=1, which shows them to root alone',
  };
}

/**
 * Under lockdown the kernel takes signed kernels only, by keys of its own: whether this one is, it alone can
 * tell.
 */
function lockdown(image: string, root: string): Finding {
  const what = 'lockdown';
  const mode = lockdownMode(root);
  if (mode === undefined) return { what, state: 'good', found: 'off' };
  if (text(root, 'sys/kernel/kexec_loaded') === '1') {
    const todo = 'if arming fails: the kernel takes signed kernels only';
    return { what, state: 'advice', found: `${mode}; not tried, as a kernel waits for kexec already`, todo };
  }
  const refusal = triedLoading(image);
  if (refusal === undefined) {
    const todo = 'where memory lies above 4 GiB, the crash world may not get that back (see docs/arming.md)';
    return { what, state: 'advice', found: `${mode}; the kernel takes its own image, which is signed`, todo };
  }
  const todo =
    'boot without lockdown, or a kernel that is signed by a key that the kernel or the firmware knows';
  return { what, state: 'missing', found: `${mode}: the kernel does not take ${image} (${refusal})`, todo };
}

/**
 * Loads the image as one that `kexec -e` would start, and unloads it: the checks are those of a crash kernel,
 * and a crash kernel that is loaded stays. @returns what was said against it
 */
function triedLoading(image: string): string | undefined {
  const kexec = findProgram('kexec');
  if (kexec === undefined || !existsSync(image))
    return `there is no ${kexec === undefined ? 'kexec' : image}`;
  try {
    runProgram(kexec, ['-s', '-l', '--command-line=root=none', image]);
  } catch (error) {
    if (!(error instanceof ArmError)) throw error;
    return error.message.split('\n').at(-1);
  }
  runProgram(kexec, ['-s', '-u']);
  return undefined;
}
