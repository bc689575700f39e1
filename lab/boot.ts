import { closeSync, existsSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Accelerator, acceleratorArguments, chooseAccelerator } from './accelerator.ts';
import { processExists } from './cache.ts';
import { answers, dropConnection } from './channel.ts';
import { runChecked, runCommand } from './command.ts';
import { LabError } from './error.ts';
import {
  type GuestPaths,
  type GuestState,
  guestPaths,
  guestPid,
  makeGuestDirectory,
  readGuest,
  writeGuest,
} from './guest.ts';
import { type GuestImage, prepareImage } from './image.ts';
import type { Progress } from './progress.ts';
import { findQemu, type Qemu } from './qemu.ts';
import { withQmp } from './qmp.ts';
import type { Release } from './release.ts';

/** What a guest is to be like. */
export interface GuestOptions {
  name: string;
  release: Release;
  packages: readonly string[];
  memoryMiB: number;
  cpus: number;
  crashKernelMiB: number;
  forwards: readonly { host: number; guest: number }[];
  /** More kernel parameters. */
  append: string;
}

/** Longest time from QEMU's start to sshd's greeting; a software-emulated guest takes 15 to 30 s. */
const BOOT_SECONDS = 240;

/**
 * Builds what is missing, boots a fresh guest and waits until it answers.
 * @throws LabError if a guest of this name runs, a port is taken, or the guest does not come up
 */
export async function bootGuest(options: GuestOptions, progress: Progress): Promise<GuestState> {
  const { name } = options;
  guestPaths(name);
  if (guestPid(name) !== undefined)
    throw new LabError(`guest ${name} runs already; 'lab down ${name}' ends it`);
  for (const { host } of options.forwards) {
    if (!(await portIsFree(host)))
      throw new LabError(`port ${host} of this host is taken; choose another for --forward`);
  }
  const qemu = await findQemu(progress);
  const image = await prepareImage(options.release, options.packages, progress);
  const accelerator = await chooseAccelerator(qemu, image, progress);
  const paths = makeGuestDirectory(name);
  const state = describeGuest(options, image, qemu, accelerator, await freePort());
  await runChecked(qemu.img, ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', image.rootDisk, paths.disk], {
    env: qemu.environment,
  });
  progress.step(`booting ${name}: Debian ${options.release}, ${image.kernelRelease}, ${accelerator}`);
  writeGuest(state);
  await startQemu(qemu, qemuArguments(options, state, image, qemu, paths));
  if (!(await answers(name, BOOT_SECONDS))) {
    const end = consoleTail(name, 20);
    await stopGuest(name);
    throw new LabError(`guest ${name} did not come up; the end of its console:\n${end}`);
  }
  return state;
}

function describeGuest(
  options: GuestOptions,
  image: GuestImage,
  qemu: Qemu,
  accelerator: Accelerator,
  sshPort: number,
): GuestState {
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

function qemuArguments(
  options: GuestOptions,
  state: GuestState,
  image: GuestImage,
  qemu: Qemu,
  paths: GuestPaths,
): string[] {
  const forwards = [{ host: state.sshPort, guest: 22 }, ...options.forwards]
    .map(({ host, guest }) => `,hostfwd=tcp:127.0.0.1:${host}-:${guest}`)
    .join('');
  const parameters = [
    'root=/dev/vda rw console=ttyS0 net.ifnames=0',
    options.crashKernelMiB > 0 ? `crashkernel=${options.crashKernelMiB}M` : '',
    options.append,
  ];
  return [
    ...qemu.firmwareArguments,
    ...acceleratorArguments(state.accelerator),
    ...[
      '-name',
      options.name,
      '-machine',
      'q35,sata=off,smbus=off',
      '-m',
      String(options.memoryMiB),
      '-smp',
      String(options.cpus),
    ],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-daemonize', '-pidfile', paths.pid],
    ...['-kernel', image.kernel, '-initrd', image.initrd, '-append', parameters.filter(Boolean).join(' ')],
    ...['-chardev', `file,id=console,path=${paths.consoleLog}`, '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=shell,path=${paths.shell},server=on,wait=off`, '-serial', 'chardev:shell'],
    ...['-qmp', `unix:${paths.qmp},server=on,wait=off`],
    ...['-blockdev', `file,node-name=file,filename=${paths.disk},cache.no-flush=on`],
    ...['-blockdev', 'qcow2,node-name=disk,file=file,cache.no-flush=on'],
    ...['-device', 'virtio-blk-pci,drive=disk'],
    ...['-netdev', `user,id=net,ipv6=off${forwards}`, '-device', 'virtio-net-pci,netdev=net,romfile='],
    ...['-device', 'virtio-rng-pci', '-device', 'vmcoreinfo'],
  ];
}

async function startQemu(qemu: Qemu, args: readonly string[]): Promise<void> {
  const { status, stderr } = await runCommand(qemu.system, args, { env: qemu.environment });
  if (status !== 0) throw new LabError(`QEMU does not start: ${stderr.trim()}`);
}

/** Ends a guest at once, as pulling the plug would, and removes what is left of it. */
export async function removeGuest(name: string): Promise<void> {
  readGuest(name);
  await stopGuest(name);
  rmSync(guestPaths(name).directory, { recursive: true, force: true });
}

async function stopGuest(name: string): Promise<void> {
  await dropConnection(name);
  const pid = guestPid(name);
  if (pid === undefined) return;
  await Promise.race([withQmp(guestPaths(name).qmp, (qmp) => qmp.execute('quit')), sleep(3000)]).catch(
    () => undefined,
  );
  for (let waited = 0; processExists(pid) && waited < 50; waited++) await sleep(100);
  if (processExists(pid)) process.kill(pid, 'SIGKILL');
}

/** The last lines that the guest wrote to its console. */
export function consoleTail(name: string, lines: number): string {
  const { consoleLog } = guestPaths(name);
  if (!existsSync(consoleLog)) return '';
  const size = statSync(consoleLog).size;
  const length = Math.min(size, 64 * 1024);
  const buffer = Buffer.alloc(length);
  const fd = openSync(consoleLog, 'r');
  readSync(fd, buffer, 0, length, size - length);
  closeSync(fd);
  return buffer.toString('utf8').replaceAll('\r', '').trimEnd().split('\n').slice(-lines).join('\n');
}

async function freePort(): Promise<number> {
  const port = await listen(0);
  if (port === undefined) throw new LabError('no free port on 127.0.0.1');
  return port;
}

async function portIsFree(port: number): Promise<boolean> {
  return (await listen(port)) !== undefined;
}

/** Listens for a moment. @returns the port, or undefined if it is taken */
function listen(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(undefined));
    server.listen(port, '127.0.0.1', () => {
      const address = server.address();
      const chosen = typeof address === 'object' && address ? address.port : undefined;
      server.close(() => resolve(chosen));
    });
  });
}
