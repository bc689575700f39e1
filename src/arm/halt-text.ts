import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { HaltText } from '../stage-zero/area.ts';
import { codeOf } from '../system/thrown.ts';
import { Kcore } from '../vmcore/kcore.ts';
import type { IomemEntry } from './iomem.ts';
import { symbolAddress } from './kernel-addresses.ts';

/**
 * Firmware of virtual machines that is known to come back from a system management interrupt which it did
 * not ask for: DMI's vendor of the system and of the BIOS.
 */
const KNOWN_FIRMWARE: ReadonlySet<string> = new Set(['QEMU SeaBIOS']);

/** `auto`: on known firmware only. */
export type BootProcessorSetting = 'auto' | 'smi' | 'off';

/**
 * Where the boot processor will be halted by a panic on another one, if a system management interrupt may
 * call it from there.
 * @returns a sentence if not
 */
export function findHaltText(
  setting: BootProcessorSetting,
  resources: readonly IomemEntry[],
  root = '/',
): HaltText | string {
  if (setting === 'off') return 'the configuration says so (crash-kernel.boot-processor)';
  if (setting === 'auto' && !isKnownFirmware(root)) {
    return (
      `what the firmware (${firmware(root)}) makes of a system management interrupt is not known; ` +
      'crash-kernel.boot-processor = "smi" in /etc/otherworld/otherworld.toml tries it'
    );
  }
  return haltOfKernel(resources, root);
}

/** Whether the firmware is one that is known to come back from such an interrupt. */
export function isKnownFirmware(root = '/'): boolean {
  return KNOWN_FIRMWARE.has(firmware(root));
}

function firmware(root: string): string {
  const read = (name: string): string => {
    const file = join(root, 'sys/class/dmi/id', name);
    return existsSync(file) ? readFileSync(file, 'utf8').trim() : 'unknown';
  };
  return `${read('sys_vendor')} ${read('bios_vendor')}`;
}

/**
 * The function that halts a processor for good (arch/x86/kernel/paravirt.c), and how far HLT is from its
 * start.
 */
const HALTING_FUNCTION = 'native_halt';
const LONGEST_PROLOGUE = 32;
/** HLT, and RET or the jump to the kernel's return thunk. */
const HALT = /\xf4[\xc3\xe9]/;

function haltOfKernel(resources: readonly IomemEntry[], root: string): HaltText | string {
  const symbols = readFileSync(join(root, 'proc/kallsyms'), 'latin1');
  const [text, halting] = [symbolAddress(symbols, '_text'), symbolAddress(symbols, HALTING_FUNCTION)];
  const code = resources.find(({ name }) => name === 'Kernel code');
  if (!text || !halting || code === undefined) return `the kernel does not show where ${HALTING_FUNCTION} is`;
  const physical = code.start + Number(halting - text);
  const bytes = readPhysical(physical, LONGEST_PROLOGUE, join(root, 'proc/kcore'));
  const offset = bytes === undefined ? -1 : bytes.toString('latin1').search(HALT);
  if (offset === -1) return `${HALTING_FUNCTION} of this kernel is not what is expected`;
  return { physical: physical + offset, virtual: halting + BigInt(offset) };
}

function readPhysical(address: number, length: number, path: string): Buffer | undefined {
  try {
    using memory = new Kcore(path);
    return memory.readPhysical(address, length);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return undefined;
  }
}
