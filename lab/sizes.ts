import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { WrongUse } from './error.ts';
import { PID_MAX_LIMIT } from './furnish.ts';
import type { Topology } from './topology.ts';

/** What a guest is to have, as far as it can be too little. */
export interface Sizes extends Topology {
  memoryMiB: number;
  cpus: number;
  /** 0: no memory is reserved for a crash kernel. */
  crashKernelMiB: number;
  /** The number of the process before the guest's next one. */
  lastPid?: number;
}

/** What the host has for a guest. */
export interface Host {
  /** CPUs that this process may use. */
  cpus: number;
  /** Memory and swap, or what this process's cgroup may use of memory, if that is less. */
  memoryMiB: number;
}

/**
 * Virtual CPUs for each of the host's: with more, the guest's own limits of time say nothing any more, and it
 * is given up while it boots.
 */
const CPUS_FOR_ONE = 4;
/** As many as q35 has without an IOMMU: numbers of APICs have 8 bits, and one of them is everybody's. */
const MOST_CPUS = 255;

const LEAST_MEMORY_MIB = 512;
/** What Debian needs besides the memory reserved for the crash kernel, to boot and to arm. */
const LEAST_LEFT_MIB = 384;

/** Less than this, and a node has no memory of its own to speak of. */
const LEAST_NODE_MIB = 256;
/** As many as QEMU's q35 has PCI slots for, with the other devices of a guest. */
const MOST_DISKS = 20;

function checkTopology({ memoryMiB, cpus, numaNodes = 1, disks = 1, lastPid = 0 }: Sizes): void {
  if (numaNodes < 1 || numaNodes > cpus) {
    throw new WrongUse(`--numa ${numaNodes}: from 1 to as many nodes as there are CPUs (--cpus ${cpus})`);
  }
  if (numaNodes > 1 && memoryMiB / numaNodes < LEAST_NODE_MIB) {
    throw new WrongUse(
      `--numa ${numaNodes}: each node needs ${LEAST_NODE_MIB} MiB: --memory ${numaNodes * LEAST_NODE_MIB}`,
    );
  }
  if (disks < 1 || disks > MOST_DISKS) throw new WrongUse(`--disk ${disks}: from 1 to ${MOST_DISKS} disks`);
  if (lastPid >= PID_MAX_LIMIT)
    throw new WrongUse(`--last-pid ${lastPid}: below ${PID_MAX_LIMIT}, Linux's highest`);
}

/** This host. Memory that is in use counts as well: a guest takes what it touches, and when it does. */
function thisHost(): Host {
  const meminfo = readFileSync('/proc/meminfo', 'utf8');
  const bytesOf = (name: string): number =>
    Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(meminfo)?.[1]) * 1024;
  // 0, or more than any memory, where the cgroup sets no limit.
  const limit = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  const bytes = Math.min(bytesOf('MemTotal') + bytesOf('SwapTotal'), limit);
  return { cpus: availableParallelism(), memoryMiB: Math.floor(bytes / 2 ** 20) };
}

/** @throws WrongUse if a guest cannot be as large as that here, with what there is */
function checkHost({ memoryMiB, cpus }: Sizes, host: Host): void {
  const most = Math.min(host.cpus * CPUS_FOR_ONE, MOST_CPUS);
  if (cpus > most) {
    throw new WrongUse(
      `--cpus ${cpus}: this host has ${host.cpus === 1 ? '1 CPU' : `${host.cpus} CPUs`}, ` +
        `enough for a guest with ${most}: --cpus ${most} or fewer`,
    );
  }
  if (memoryMiB > host.memoryMiB) {
    throw new WrongUse(
      `--memory ${memoryMiB}: this host has ${host.memoryMiB} MiB in all, swap included: name less than that, ` +
        'and no more than it has to spare',
    );
  }
}

/**
 * Checks the sizes of a guest before anything is built or booted for it.
 * @throws WrongUse that names the option and what it takes
 */
export function checkSizes(sizes: Sizes, arm: boolean, host: Host = thisHost()): void {
  const { memoryMiB, cpus, crashKernelMiB } = sizes;
  if (cpus < 1) throw new WrongUse('--cpus 0: a guest needs a CPU; --cpus 1 or more');
  if (memoryMiB < LEAST_MEMORY_MIB) {
    throw new WrongUse(`--memory ${memoryMiB}: a guest needs at least ${LEAST_MEMORY_MIB} MiB`);
  }
  checkHost(sizes, host);
  checkTopology(sizes);
  if (arm && crashKernelMiB === 0) {
    throw new WrongUse(
      '--crashkernel 0 leaves no memory to arm with: leave the option out (320 MiB), or add --no-arm',
    );
  }
  const left = memoryMiB - crashKernelMiB;
  if (left >= LEAST_LEFT_MIB) return;
  throw new WrongUse(
    `--crashkernel ${crashKernelMiB} of --memory ${memoryMiB} leaves ${Math.max(left, 0)} MiB for the guest, which needs ` +
      `${LEAST_LEFT_MIB}: --memory ${crashKernelMiB + LEAST_LEFT_MIB} or more, or a smaller --crashkernel (0 with --no-arm)`,
  );
}
