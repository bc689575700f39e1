import { execChecked } from './channel.ts';
import { extraDisks, type Topology } from './topology.ts';

/** What a guest is given once it has booted. */
export interface Furniture extends Topology {
  /** Whether there are two users besides root, `alice` and `bob`, each with a group of its own. */
  users?: boolean;
  /** The next process gets the number after this; 0: whatever comes. */
  lastPid?: number;
}

export const userNames = ['alice', 'bob'] as const;

/** Where the second disk and those after it are mounted; in /etc/fstab, as a server's are. */
export const diskMount = (number: number): string => `/srv/disk${number}`;

/** Linux's PID_MAX_LIMIT on 64-bit machines, which systemd sets kernel.pid_max to. */
export const PID_MAX_LIMIT = 4_194_304;

/**
 * Disks get an ext4 file system and a place in /etc/fstab, users their accounts.
 * @throws LabError with what the guest said
 */
export async function furnish(name: string, furniture: Furniture): Promise<void> {
  const disks = extraDisks(furniture).map((number) => {
    const [device, place] = [`/dev/disk/by-id/virtio-disk${number}`, diskMount(number)];
    return [
      `udevadm settle; mkfs.ext4 -q ${device}; mkdir -p ${place}`,
      `echo "UUID=$(blkid -o value -s UUID ${device}) ${place} ext4 defaults 0 2" >>/etc/fstab; mount ${place}`,
    ].join('\n');
  });
  const users = furniture.users ? userNames.map((user) => `useradd --create-home --user-group ${user}`) : [];
  const pids = furniture.lastPid ? [`echo ${furniture.lastPid} >/proc/sys/kernel/ns_last_pid`] : [];
  const steps = [...disks, ...users, ...pids];
  if (steps.length > 0) await execChecked(name, ['sh', '-euc', steps.join('\n')]);
}
