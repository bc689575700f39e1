import { type Accelerator, acceleratorArguments } from './accelerator.ts';
import { runChecked, runCommand } from './command.ts';
import { LabError } from './error.ts';
import type { Furniture } from './furnish.ts';
import { type GuestPaths, type GuestState, writeGuest } from './guest.ts';
import type { GuestImage } from './image.ts';
import type { Qemu } from './qemu.ts';
import type { Release } from './release.ts';
import { diskArguments, makeExtraDisks, sizeArguments } from './topology.ts';

/** What a guest is to be like. */
export interface GuestOptions extends Furniture {
  name: string;
  release: Release;
  packages: readonly string[];
  memoryMiB: number;
  cpus: number;
  crashKernelMiB: number;
  forwards: readonly { host: number; guest: number }[];
  /** More kernel parameters. */
  append: string;
  /** More arguments for QEMU: devices. */
  devices?: readonly string[];
  /** Start from a snapshot of a guest like this, which has booted or is armed; the first one makes it. */
  quick?: boolean;
}

/** All that is decided before QEMU starts. */
export interface Machine {
  options: GuestOptions;
  image: GuestImage;
  qemu: Qemu;
  accelerator: Accelerator;
  sshPort: number;
}

/** Where a machine's disk, and for a snapshot its memory, come from. */
export interface MachineSource {
  disk: string;
  diskFormat: 'raw' | 'qcow2';
  /** A QEMU migration stream; without it the machine boots. */
  memory?: string;
}

/**
 * Starts QEMU in the background, with an overlay over the source's disk.
 * @throws LabError with QEMU's own words
 */
export async function startMachine(
  machine: Machine,
  paths: GuestPaths,
  source: MachineSource,
): Promise<GuestState> {
  const { qemu } = machine;
  const overlay = ['create', '-q', '-f', 'qcow2', '-F', source.diskFormat, '-b', source.disk, paths.disk];
  await runChecked(qemu.img, overlay, { env: qemu.environment });
  await makeExtraDisks(machine.options, paths, qemu);
  const state = describeGuest(machine);
  writeGuest(state);
  const incoming = source.memory === undefined ? [] : ['-incoming', `file:${source.memory}`];
  const args = [...qemuArguments(machine, paths), ...incoming];
  const { status, stderr } = await runCommand(qemu.system, args, { env: qemu.environment });
  if (status !== 0) throw new LabError(`QEMU does not start: ${stderr.trim()}`);
  return state;
}

function describeGuest({ options, image, qemu, accelerator, sshPort }: Machine): GuestState {
  return {
    name: options.name,
    release: options.release,
    kernelRelease: image.kernelRelease,
    systemKey: image.systemKey,
    packages: [...options.packages],
    memoryMiB: options.memoryMiB,
    cpus: options.cpus,
    accelerator,
    qemuVersion: qemu.version,
    sshPort,
    forwards: [...options.forwards],
    startedAt: new Date().toISOString(),
  };
}

/**
 * The guest's kernel command line. An emulated CPU may be away for so long that the kernel's first look at
 * its timer fails, and it panics (check_timer, arch/x86/kernel/apic/io_apic.c). Under KVM, kernels do without
 * that look by themselves.
 */
export function kernelParameters({
  options,
  accelerator,
}: {
  options: Pick<GuestOptions, 'crashKernelMiB' | 'append'>;
  accelerator: Accelerator;
}): string {
  const reserve = options.crashKernelMiB > 0 ? `crashkernel=${options.crashKernelMiB}M` : '';
  const timer = accelerator === 'tcg' ? 'no_timer_check' : '';
  return ['root=/dev/vda rw console=ttyS0 net.ifnames=0', timer, reserve, options.append]
    .filter(Boolean)
    .join(' ');
}

function qemuArguments(machine: Machine, paths: GuestPaths): string[] {
  const { options, image, qemu, accelerator, sshPort } = machine;
  const forwards = [{ host: sshPort, guest: 22 }, ...options.forwards]
    .map(({ host, guest }) => `,hostfwd=tcp:127.0.0.1:${host}-:${guest}`)
    .join('');
  const size = sizeArguments(options.memoryMiB, options.cpus, options);
  return [
    ...qemu.firmwareArguments,
    ...acceleratorArguments(accelerator),
    ...['-name', options.name, '-machine', 'q35,sata=off,smbus=off', ...size],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-daemonize', '-pidfile', paths.pid],
    ...['-kernel', image.kernel, '-initrd', image.initrd, '-append', kernelParameters(machine)],
    ...['-chardev', `file,id=console,path=${paths.consoleLog},append=on`, '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=shell,path=${paths.shell},server=on,wait=off`, '-serial', 'chardev:shell'],
    ...['-qmp', `unix:${paths.qmp},server=on,wait=off`],
    ...['-blockdev', `file,node-name=file,filename=${paths.disk},cache.no-flush=on`],
    ...['-blockdev', 'qcow2,node-name=disk,file=file,cache.no-flush=on'],
    ...['-device', 'virtio-blk-pci,drive=disk'],
    ...diskArguments(options, paths),
    ...['-netdev', `user,id=net,ipv6=off${forwards}`, '-device', 'virtio-net-pci,netdev=net,romfile='],
    ...['-device', 'virtio-rng-pci', '-device', 'vmcoreinfo'],
    ...(options.devices ?? []),
  ];
}
