import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { say } from './stages.ts';

const DEVICES = '/sys/bus/pci/devices';
/** Base classes (PCI Code and ID Assignment Specification). What bridges forward is their devices'; a display may be the console. */
const BRIDGE = 0x06;
const DISPLAY = 0x03;
/** PCI_COMMAND and its bit PCI_COMMAND_MASTER (include/uapi/linux/pci_regs.h). */
const COMMAND = 4;
const MASTER = 1 << 2;
/** Ways to reset one function and nothing beside it (pci_reset_fn_methods in drivers/pci/pci.c). */
const FUNCTION_RESETS = new Set(['device_specific', 'flr', 'af_flr']);

/** A device could not be kept from memory. */
export class StrayDmaError extends Error {
  override readonly name = 'StrayDmaError';
}

/**
 * Keeps PCI devices without a driver from writing to memory. Nobody shut them down when the kernel died, and they still have its buffers: a network card
 * writes every packet that arrives into memory that belongs to somebody else once it is taken back. A device that has a driver was reset by
 * that. The others are reset if that concerns nothing else, and lose the permission to read and write memory until a driver gives it back, as at any
 * kexec (pci_device_shutdown).
 * @throws StrayDmaError if a device keeps the permission
 */
export function stopStrayDma(devices = DEVICES): void {
  for (const name of readdirSync(devices)) {
    const device = join(devices, name);
    if (isStray(device)) quiet(device, name);
  }
}

function isStray(device: string): boolean {
  return !existsSync(join(device, 'driver')) && isMaster(device) && baseClass(device) !== BRIDGE;
}

function baseClass(device: string): number {
  return Number(readFileSync(join(device, 'class'), 'utf8')) >> 16;
}

function isMaster(device: string): boolean {
  return (readFileSync(join(device, 'config')).readUInt16LE(COMMAND) & MASTER) !== 0;
}

function quiet(device: string, name: string): void {
  let problem = 'it still is a bus master';
  try {
    reset(device);
    // Only what is enabled can be disabled, and disabling takes the permission away (do_pci_disable_device).
    for (const value of ['1', '0']) writeFileSync(join(device, 'enable'), value);
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error);
  }
  if (isMaster(device)) throw new StrayDmaError(`the device ${name} cannot be kept from memory: ${problem}`);
}

/** Resets the function, if there is a way that concerns nothing else. One that does not let itself be reset is quiet until its driver comes. */
function reset(device: string): void {
  const methods = join(device, 'reset_method');
  if (!existsSync(methods) || baseClass(device) === DISPLAY) return;
  const method = readFileSync(methods, 'utf8')
    .trim()
    .split(' ')
    .find((name) => FUNCTION_RESETS.has(name));
  if (method === undefined) return;
  try {
    writeFileSync(methods, method);
    writeFileSync(join(device, 'reset'), '1');
  } catch (error) {
    say(`${device} was not reset: ${String(error)}`);
  }
}
