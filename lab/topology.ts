import { join } from 'node:path';
import { runChecked } from './command.ts';
import type { GuestPaths } from './guest.ts';
import type { Qemu } from './qemu.ts';

/** What of a machine is like a server's; all of it has a default, a small machine's. */
export interface Topology {
  /** NUMA nodes, among which memory and CPUs are divided; 1 is a machine without NUMA. */
  numaNodes?: number;
  /** Disks, the root file system's included. */
  disks?: number;
}

/** The kernel takes the ends of a node's memory to be those of whole memory blocks. */
const MEMORY_BLOCK_MIB = 128;

/** QEMU's arguments for memory and CPUs: each node gets an equal part, the last one what is left. */
export function sizeArguments(memoryMiB: number, cpus: number, { numaNodes = 1 }: Topology): string[] {
  const size = ['-m', String(memoryMiB), '-smp', String(cpus)];
  if (numaNodes === 1) return size;
  const share = (node: number, all: number, unit: number): { first: number; end: number } => {
    const part = Math.floor(all / numaNodes / unit) * unit;
    return { first: node * part, end: node === numaNodes - 1 ? all : (node + 1) * part };
  };
  const nodes = Array.from({ length: numaNodes }, (_, node) => {
    const memory = share(node, memoryMiB, MEMORY_BLOCK_MIB);
    const cpu = share(node, cpus, 1);
    return [
      ...['-object', `memory-backend-ram,id=node${node},size=${memory.end - memory.first}M`],
      ...['-numa', `node,nodeid=${node},memdev=node${node},cpus=${cpu.first}-${cpu.end - 1}`],
    ];
  });
  return [...size, ...nodes.flat()];
}

/** Numbers of the disks besides the root file system's: 2 and so on. */
export function extraDisks({ disks = 1 }: Topology): number[] {
  return Array.from({ length: disks - 1 }, (_, i) => i + 2);
}

const EXTRA_DISK_SIZE = '4G';

function diskPath({ directory }: GuestPaths, number: number): string {
  return join(directory, `disk${number}.qcow2`);
}

/** Makes the files of the second disk and those after it, empty. */
export async function makeExtraDisks(topology: Topology, paths: GuestPaths, qemu: Qemu): Promise<void> {
  for (const number of extraDisks(topology)) {
    const blank = ['create', '-q', '-f', 'qcow2', diskPath(paths, number), EXTRA_DISK_SIZE];
    await runChecked(qemu.img, blank, { env: qemu.environment });
  }
}

/** QEMU's arguments for them; the guest knows each by its serial number, `disk2` and so on. */
export function diskArguments(topology: Topology, paths: GuestPaths): string[] {
  return extraDisks(topology).flatMap((number) => [
    ...['-blockdev', `file,node-name=file${number},filename=${diskPath(paths, number)},cache.no-flush=on`],
    ...['-blockdev', `qcow2,node-name=disk${number},file=file${number},cache.no-flush=on`],
    ...['-device', `virtio-blk-pci,drive=disk${number},serial=disk${number}`],
  ]);
}
