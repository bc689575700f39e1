import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { INSTALLATION } from '../config/installation.ts';
import type { Manifest } from '../config/manifest.ts';
import type { Config } from '../config/schema.ts';
import type { Range } from '../system/range.ts';
import { encodeProfile } from '../vmcore/profile.ts';
import { takeProfile } from '../vmcore/take-profile.ts';
import { findProgram, runProgram } from './command.ts';
import { bootApicId, crashCommandLine, loopsPerJiffy, timerWorks } from './command-line.ts';
import type { CpioEntry } from './cpio.ts';
import type { PayloadFile } from './initramfs.ts';
import { parseIomem } from './iomem.ts';
import { firmwareHasSrat, SRAT_PATH, singleNodeSrat } from './srat.ts';

/** The crash kernel's command line for this machine and configuration. */
export function commandLineOf(config: Config, release: string, ranges: readonly Range[]): string {
  const kernelConfig = `/boot/config-${release}`;
  const cpuinfo = readFileSync('/proc/cpuinfo', 'utf8');
  return crashCommandLine({
    main: readFileSync('/proc/cmdline', 'utf8'),
    ranges,
    loopsPerJiffy: loopsPerJiffy(cpuinfo, existsSync(kernelConfig) ? readFileSync(kernelConfig, 'utf8') : ''),
    bootApicId: bootApicId(cpuinfo),
    timerWorks: timerWorks(kernelLog()),
    rebootAfterSeconds: config.panic['reboot-after-seconds'],
    add: config['crash-kernel']['add-parameters'],
    remove: config['crash-kernel']['remove-parameters'],
  });
}

/** The kernel's log of this boot; if its beginning has been overwritten, as the journal has it. */
function kernelLog(): string {
  const ring = runProgram('dmesg', []);
  if (ring.includes('Linux version ') || findProgram('journalctl') === undefined) return ring;
  return runProgram('journalctl', ['--dmesg', '--boot', '--quiet', '--output=cat']);
}

/** What the crash world finds in /run/otherworld/payload. */
export function payload(manifest: Manifest, bundle: string): PayloadFile[] {
  const limit = Math.round(manifest.config['crash-kernel']['time-limit-minutes'] * 60);
  return [
    { name: 'init', data: readFileSync(join(INSTALLATION, 'src/crash-world/init.sh')), mode: 0o700 },
    { name: 'give-up.sh', data: readFileSync(join(INSTALLATION, 'src/crash-world/give-up.sh')) },
    text('reboot-after', manifest.config.panic['reboot-after-seconds']),
    text('reserved-bytes', manifest.reservedBytes),
    text('system-node', process.execPath),
    text('system-modules', join(INSTALLATION, 'node_modules')),
    { name: 'crash-world.mjs', data: readFileSync(bundle) },
    { name: 'profile', data: encodeProfile(takeProfile()) },
    text('time-limit', limit),
    { name: 'manifest.json', data: Buffer.from(JSON.stringify(manifest)) },
  ];
}

/** A file that a shell reads. */
function text(name: string, value: string | number): PayloadFile {
  return { name, data: Buffer.from(`${value}\n`) };
}

/** What the kernel has to have before it counts its memory. */
export function earlyFiles(): CpioEntry[] {
  if (firmwareHasSrat()) return [];
  const table = singleNodeSrat(parseIomem(readFileSync('/proc/iomem', 'utf8')));
  return [{ path: SRAT_PATH, mode: 0o400, data: table }];
}
