import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { certainId, certainPlace, NOT_TOLD_APART, type SwapDevice } from '../../linux/readers/swap-areas.ts';
import { ifThere } from '../../system/proc.ts';

/** A disk or partition of this kernel. */
export type BlockDevice = Omit<SwapDevice, 'partitionUuid'>;

const SYS = '/sys';

/** The number of a device as stat(2) gives it, from `major:minor`. */
function deviceNumber(text: string): number {
  const [major = 0, minor = 0] = text.trim().split(':').map(Number);
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** The disks and partitions that this kernel has, the virtual ones left out. */
export function blockDevices(sys = SYS): BlockDevice[] {
  const all = join(sys, 'class/block');
  return readdirSync(all).flatMap((name) => {
    const attribute = (file: string): string | undefined =>
      ifThere(() => readFileSync(join(all, name, file), 'utf8'));
    const place = ifThere(() => realpathSync(join(all, name)))?.slice(realpathSync(sys).length);
    const [dev, size] = [attribute('dev'), attribute('size')];
    if (place === undefined || dev === undefined || size === undefined) return [];
    if (place.startsWith('/devices/virtual/')) return [];
    const partition = Number(attribute('partition') ?? 0);
    const startSector = Number(attribute('start') ?? 0);
    return [{ name, number: deviceNumber(dev), sectors: Number(size), partition, startSector, place }];
  });
}

const BLKID_MILLISECONDS = 20_000;

/** PARTUUID of a partition, as blkid(8) reads it from its table; undefined if there is none. */
export function partitionUuid({ name }: BlockDevice): string | undefined {
  const args = ['-p', '-s', 'PART_ENTRY_UUID', '-o', 'value', devicePath(name)];
  const { stdout } = spawnSync('blkid', args, { encoding: 'utf8', timeout: BLKID_MILLISECONDS });
  return stdout?.trim() || undefined;
}

/** The node of a device: what is `!` in /sys is a directory in /dev. */
export function devicePath(name: string): string {
  return `/dev/${name.replaceAll('!', '/')}`;
}

/** What of a device has to be the same, whatever it is called now. */
function isAlike(was: SwapDevice, is: BlockDevice): boolean {
  return (
    // A copy of a disk has the ids of its partitions too.
    certainPlace(was) === certainPlace(is) &&
    is.sectors === was.sectors &&
    is.partition === was.partition &&
    is.startSector === was.startSector
  );
}

/**
 * The device that the dead kernel had a swap area on: a partition by its id, a disk by its place.
 * @param uuidOf PARTUUID of a partition
 * @returns a sentence after the device's name if it is not found for certain
 */
export function findSwapDevice(
  was: SwapDevice,
  devices: readonly BlockDevice[],
  uuidOf: (device: BlockDevice) => string | undefined = partitionUuid,
): BlockDevice | string {
  const [uuid, place] = [certainId(was), certainPlace(was)];
  if (uuid === undefined && place === undefined) return NOT_TOLD_APART;
  const found = devices.filter((device) => {
    if (!isAlike(was, device)) return false;
    return uuid === undefined ? certainPlace(device) === place : uuidOf(device)?.toLowerCase() === uuid;
  });
  if (found.length > 1) return `is not the only one of its kind: ${found.map(({ name }) => name).join(', ')}`;
  return found[0] ?? 'is not found among the disks of the crash kernel';
}

/**
 * The device that the dead kernel had a swap file on. It has to be found like an area of its own, and to be
 * what the file's file system is mounted from: a copy of a disk has the same file at the same place.
 * @param mounted number of that device (`st_dev` of the file)
 * @returns a sentence after the file's name if it is not found for certain
 */
export function findFileDevice(
  was: SwapDevice,
  mounted: number,
  devices: readonly BlockDevice[],
  uuidOf: (device: BlockDevice) => string | undefined = partitionUuid,
): BlockDevice | string {
  const found = findSwapDevice(was, devices, uuidOf);
  if (typeof found === 'string') return `is on ${was.name}, which ${found}`;
  return found.number === mounted ? found : 'is on another disk than before the panic';
}
