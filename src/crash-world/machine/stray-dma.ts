import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { messageWithCauses } from '../../system/thrown.ts';
import { say } from '../stages/stage-runner.ts';

const DEVICES = '/sys/bus/pci/devices';
/** In the configuration space, with its bit for bus mastering (include/uapi/linux/pci_regs.h). */
const PCI_COMMAND = 4;
const PCI_COMMAND_MASTER = 1 << 2;
/** What a device answers that is not there any more. */
const NOBODY = 0xffff;
/** Classes, without the programming interface (include/linux/pci_ids.h). */
const PCI_BASE_CLASS_BRIDGE = 0x06;
const PCI_BASE_CLASS_DISPLAY = 0x03;
const PCI_CLASS_SYSTEM_IOMMU = 0x0806;
/** Ways to reset one function and nothing beside it (pci_reset_fn_methods in drivers/pci/pci.c). */
const FUNCTION_RESETS = new Set(['device_specific', 'flr', 'af_flr']);

/** A device can still write to memory. */
export class StrayDmaError extends Error {
  override readonly name = 'StrayDmaError';
}

/**
 * Ends the bus mastering (DMA) of PCI devices without a driver. Nobody shut them down when the kernel died,
 * and they still have its buffers: a network card writes every packet that arrives into memory that belongs
 * to somebody else once it is taken back. Bus mastering is switched off, as at any kexec
 * (pci_device_shutdown), and the device reset if that concerns nothing else, so that it has forgotten the
 * buffers when a driver switches it on again. Devices with a driver are left to it, and bridges forward what
 * is their devices'.
 * @throws StrayDmaError if a device stays a bus master
 */
export function clearBusMasters(devices = DEVICES): void {
  for (const name of readdirSync(devices)) {
    const device = join(devices, name);
    if (!existsSync(join(device, 'driver')) && isMaster(device) && !isPassive(device)) clearMaster(device);
  }
}

function classOf(device: string): number {
  return Number(readFileSync(join(device, 'class'), 'utf8')) >> 8;
}

/** Whether the device does not use memory on behalf of a driver. */
function isPassive(device: string): boolean {
  const deviceClass = classOf(device);
  return deviceClass >> 8 === PCI_BASE_CLASS_BRIDGE || deviceClass === PCI_CLASS_SYSTEM_IOMMU;
}

/**
 * Only these two bytes are read: some devices do not bear being asked for all of their configuration space.
 */
function readCommand(device: string): number {
  const file = openSync(join(device, 'config'), 'r');
  try {
    const bytes = Buffer.alloc(2);
    readSync(file, bytes, 0, 2, PCI_COMMAND);
    return bytes.readUInt16LE();
  } finally {
    closeSync(file);
  }
}

function isMaster(device: string): boolean {
  const command = readCommand(device);
  return command !== NOBODY && (command & PCI_COMMAND_MASTER) !== 0;
}

function clearMaster(device: string): void {
  let problem = 'bus mastering does not let itself be switched off';
  try {
    writeCommand(device, readCommand(device) & ~PCI_COMMAND_MASTER);
  } catch (error) {
    problem = messageWithCauses(error);
  }
  if (isMaster(device)) throw new StrayDmaError(`${device} can still write to memory: ${problem}`);
  reset(device);
}

function writeCommand(device: string, command: number): void {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(command);
  const file = openSync(join(device, 'config'), 'r+');
  try {
    writeSync(file, bytes, 0, 2, PCI_COMMAND);
  } finally {
    closeSync(file);
  }
}

/**
 * Resets the function, if there is a way that concerns nothing else; a display may be the console. The kernel
 * keeps the command register over it. One that does not let itself be reset writes nothing until its driver
 * comes.
 */
function reset(device: string): void {
  const methods = join(device, 'reset_method');
  if (!existsSync(methods) || classOf(device) >> 8 === PCI_BASE_CLASS_DISPLAY) return;
  const method = readFileSync(methods, 'utf8')
    .trim()
    .split(' ')
    .find((name) => FUNCTION_RESETS.has(name));
  if (method === undefined) return;
  try {
    writeFileSync(methods, method);
    writeFileSync(join(device, 'reset'), '1');
    writeFileSync(methods, 'default');
  } catch (error) {
    say(`${device} was not reset: ${messageWithCauses(error)}`);
  }
}
