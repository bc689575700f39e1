import { type Command, InvalidArgumentError } from 'commander';
import { bootArmedGuest } from '../../lab/armed.ts';
import { bootGuest, keptForALook, unlessBrokenOffWith } from '../../lab/boot.ts';
import { checkImages } from '../../lab/image.ts';
import { installOtherworld } from '../../lab/install.ts';
import type { GuestOptions } from '../../lab/machine.ts';
import { type Progress, stderrProgress } from '../../lab/progress.ts';
import { parseRelease } from '../../lab/release.ts';
import { checkSizes } from '../../lab/sizes.ts';
import { wholeNumber } from './arguments.ts';

interface Forward {
  host: number;
  guest: number;
}

interface UpOptions {
  release: string;
  memory: number;
  cpus: number;
  crashkernel: number;
  numa: number;
  disk: number;
  users?: boolean;
  lastPid?: number;
  install?: string[];
  forward?: Forward[];
  append?: string;
  quick?: boolean;
  arm: boolean;
}

/** `otherworld lab up NAME`: a fresh guest in which Otherworld is installed and armed. */
export function registerLabUp(lab: Command): void {
  lab
    .command('up')
    .description('boot a fresh guest in which Otherworld is installed and armed')
    .argument('<name>', "name of the guest: letters, digits, '.', '_' and '-', at most 32")
    .option('--release <name>', 'trixie (Debian 13) or bookworm (Debian 12)', 'trixie')
    .option('--memory <MiB>', 'memory of the guest', wholeNumber, 2048)
    .option('--cpus <n>', 'virtual CPUs', wholeNumber, 2)
    .option('--crashkernel <MiB>', 'memory reserved for the crash kernel', wholeNumber, 320)
    .option('--numa <nodes>', 'NUMA nodes; memory and CPUs are divided among them', wholeNumber, 1)
    .option(
      '--disk <n>',
      "disks, the system's included; the others are mounted at /srv/disk2 and so on",
      wholeNumber,
      1,
    )
    .option('--users', 'two users besides root, alice and bob, with groups of their own')
    .option(
      '--last-pid <number>',
      'the next process gets the PID after this one: 4000000, as on a server',
      wholeNumber,
    )
    .option(
      '--install <packages>',
      'Debian packages, separated by commas: redis-server,redis-tools',
      packageList,
    )
    .option('--forward <host:guest>', 'a TCP port of 127.0.0.1 that leads into the guest: 8080:80', forward)
    .option('--append <parameters>', 'more kernel parameters')
    .option('--quick', 'start from a snapshot of such a guest, booted and armed; the first time makes it')
    .option('--no-arm', 'install, but do not arm')
    .action(up);
}

function packageList(text: string, previous: string[] = []): string[] {
  const names = text.split(',').filter(Boolean);
  const wrong = names.find((name) => !/^[a-z0-9][a-z0-9+.-]*$/.test(name));
  if (wrong !== undefined) throw new InvalidArgumentError(`'${wrong}' is no name of a Debian package.`);
  return [...previous, ...names];
}

function forward(text: string, previous: Forward[] = []): Forward[] {
  const match = /^(\d{1,5}):(\d{1,5})$/.exec(text);
  const [host, guest] = [Number(match?.[1]), Number(match?.[2])];
  if (!(host > 0 && host < 65536 && guest > 0 && guest < 65536)) {
    throw new InvalidArgumentError('HOSTPORT:GUESTPORT is wanted, as in 8080:80.');
  }
  return [...previous, { host, guest }];
}

async function up(name: string, options: UpOptions): Promise<void> {
  const progress = stderrProgress();
  const guest = {
    name,
    release: parseRelease(options.release),
    packages: options.install ?? [],
    memoryMiB: options.memory,
    cpus: options.cpus,
    crashKernelMiB: options.crashkernel,
    numaNodes: options.numa,
    disks: options.disk,
    users: options.users === true,
    lastPid: options.lastPid ?? 0,
    forwards: options.forward ?? [],
    append: options.append ?? '',
    quick: options.quick,
  };
  checkSizes(guest, options.arm);
  checkImages([guest.release]);
  await unlessBrokenOffWith(name, progress, async () => {
    if (options.arm) await bootArmedGuest(guest, progress);
    else await bootUnarmed(guest, progress);
  });
  progress.step(`${name} is up${options.arm ? ' and armed' : ''}: otherworld lab exec ${name} -- CMD`);
}

async function bootUnarmed(guest: GuestOptions, progress: Progress): Promise<void> {
  await bootGuest(guest, progress);
  try {
    progress.step('installing Otherworld');
    await installOtherworld(guest.name);
  } catch (error) {
    throw keptForALook(guest.name, error);
  }
}
