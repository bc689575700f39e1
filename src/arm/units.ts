import { existsSync, realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { INSTALLATION } from '../config/installation.ts';
import { CRASH_WORLD_PARAMETER } from '../config/paths.ts';
import { replaceFile } from '../system/state-file.ts';
import { runProgram } from './command.ts';

const UNIT = 'otherworld-arm.service';
const UNIT_PATH = `/etc/systemd/system/${UNIT}`;
/** Debian runs these when a kernel is installed, with its release as first argument. */
const KERNEL_HOOK = '/etc/kernel/postinst.d/zz-otherworld';

/** The program that is running now: of a checkout, or of an installed bundle. */
function command(...args: string[]): string {
  return [process.execPath, realpathSync(process.argv[1] ?? ''), ...args].join(' ');
}

function unit(unchecked: boolean): string {
  return `[Unit]
Description=Otherworld: load the crash kernel that brings processes back
Documentation=file:${join(INSTALLATION, 'docs/arming.md')}
ConditionKernelCommandLine=crashkernel
ConditionKernelCommandLine=!${CRASH_WORLD_PARAMETER}
RequiresMountsFor=/var/lib/otherworld /var/cache/otherworld

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=${command('arm', ...(unchecked ? ['--unchecked'] : []))}

[Install]
WantedBy=multi-user.target
`;
}

function kernelHook(): string {
  return `#!/bin/sh
# Builds the crash initramfs of a kernel that was just installed, so that arming at its first boot takes a second.
exec ${command('arm', '--build-only', '--kernel', '"$1"')}
`;
}

/**
 * Makes the system arm at each boot, and prepare when a kernel is installed.
 * @param unchecked also on kernels of a series that was not checked
 * @returns the files written
 */
export function installUnits(unchecked: boolean): string[] {
  replaceFile(UNIT_PATH, unit(unchecked), 0o644);
  replaceFile(KERNEL_HOOK, kernelHook(), 0o755);
  runProgram('systemctl', ['daemon-reload']);
  runProgram('systemctl', ['enable', UNIT]);
  return [UNIT_PATH, KERNEL_HOOK];
}

/** Whether the system arms at each boot. */
export function unitsAreInstalled(): boolean {
  return existsSync(UNIT_PATH);
}

/** Undoes installUnits. @returns whether anything was installed */
export function removeUnits(): boolean {
  if (!unitsAreInstalled()) return false;
  runProgram('systemctl', ['disable', UNIT]);
  for (const path of [UNIT_PATH, KERNEL_HOOK]) rmSync(path, { force: true });
  runProgram('systemctl', ['daemon-reload']);
  return true;
}
