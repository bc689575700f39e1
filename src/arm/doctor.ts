import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { dirname, join } from 'node:path';
import { CONFIG_PATH, ConfigError, defaultConfig, loadConfig } from '../config/config.ts';
import { INSTALLATION } from '../config/installation.ts';
import type { Config } from '../config/schema.ts';
import { seriesOf, uncheckedRelease } from '../linux/kernel-releases.ts';
import { IMAGES_REMEDY } from '../report/images.ts';
import { sayRoom } from '../report/images-room.ts';
import { pathProblem } from '../system/trusted-path.ts';
import { findProgram, runProgram } from './command.ts';
import type { Finding } from './finding.ts';
import { kernelImage, reservedBytes } from './kexec.ts';
import { computingProcesses, expectedObstacle, readProcessors } from './lacking.ts';
import { POSSIBLE_CPUS, possibleCpus, suggestedReservation } from './memory-need.ts';
import { obstacles } from './obstacles.ts';
import { INSTALLATION_REMEDY, installationProblem } from './own-installation.ts';
import { panicSysctls } from './panic-sysctls.ts';
import { lookAtRoom, type RoomFound, type RoomUnknown, roomSentences } from './room-for-images.ts';
import { isCrashWorld } from './state.ts';
import { protectedNow } from './status.ts';
import { TOOLS } from './tools.ts';
import { unitsAreInstalled } from './units.ts';

/** Examines the running system, which is afterwards as it was. */
export function examine(configPath: string = CONFIG_PATH): Finding[] {
  if (isCrashWorld()) return [crashWorld()];
  const release = runningRelease();
  const { config, findings } = configuration(configPath);
  return [
    ...findings,
    kernelSeries(release),
    ...kernelConfig(release),
    existsFinding('kernel image', kernelImage(release), 'reboot into an installed kernel'),
    crashMemory(),
    ...programs(),
    kexecTools(findProgram('kexec'), expectedObstacle(readProcessors(), release)),
    criuVersion(),
    ...sysctls(config),
    rival(),
    ...obstacles(kernelImage(release)),
    computingProcesses(release, config['crash-kernel']['boot-processor']),
    watchdog(),
    rootDevice(),
    storage(config),
    installation(),
  ];
}

/** With a configuration that is wrong, what depends on it is examined with the defaults. */
function configuration(path: string): { config: Config; findings: Finding[] } {
  const what = 'configuration';
  try {
    const config = loadConfig(path);
    const found = existsSync(path) ? path : `${path} is not there, and the defaults hold`;
    return { config, findings: [{ what, state: 'good', found }] };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const findings = error.message
      .split('\n')
      .map((found): Finding => ({ what, state: 'missing', found, todo: 'mend what it says' }));
    return { config: defaultConfig(), findings };
  }
}

function crashWorld(): Finding {
  const todo =
    'reboot when it suits you: it cannot be armed again yet, and a second panic would not be survived';
  return { what: 'this boot', state: 'missing', found: 'is a crash world', todo };
}

/** Whether what is believed of the kernel without its saying so was checked for its series. */
export function kernelSeries(release: string): Finding {
  const what = 'kernel series';
  const found = uncheckedRelease(release);
  if (found === undefined) return { what, state: 'good', found: `${seriesOf(release)}, which was checked` };
  const todo = 'boot a kernel of a checked series, or accept the risk: otherworld arm --unchecked';
  return { what, state: 'missing', found, todo };
}

/** Kernel options and what each is for; a module will do. */
const OPTIONS = [
  ['KEXEC_FILE', 'loads the crash kernel'],
  ['CRASH_DUMP', 'makes a crash kernel possible'],
  ['PROC_VMCORE', "shows the dead kernel's memory"],
  ['DEBUG_INFO_BTF', "names the dead kernel's structures"],
  ['KALLSYMS_ALL', "names the dead kernel's variables"],
  ['CHECKPOINT_RESTORE', 'lets CRIU restore processes'],
  ['TIME_NS', 'lets clocks go on'],
  ['SQUASHFS', 'holds the runtime'],
  ['BLK_DEV_LOOP', 'holds the runtime'],
  ['X86_PMEM_LEGACY', 'takes old memory back'],
  ['DEV_DAX_PMEM', 'takes old memory back'],
  ['DEV_DAX_KMEM', 'takes old memory back'],
  ['MEMORY_HOTPLUG', 'takes old memory back'],
  ['HOTPLUG_CPU', 'starts the other CPUs'],
  ['UNIX_DIAG', 'CRIU asks it about sockets'],
  ['INET_DIAG', 'CRIU asks it about sockets'],
  ['DUMMY', 'has the addresses of connections while they are made'],
  ['BPF_SYSCALL', 'holds packets back while connections are made'],
  ['CGROUP_BPF', 'holds packets back while connections are made'],
  ['NET_NS', 'leaves connections of services in a sandbox unanswered until they are there'],
] as const;

/** The options that a kernel configuration does not set to y or m. */
export function missingOptions(kernelConfig: string): (readonly [string, string])[] {
  return OPTIONS.filter(([name]) => !new RegExp(`^CONFIG_${name}=[ym]$`, 'm').test(kernelConfig));
}

function kernelConfig(release: string): Finding[] {
  const path = `/boot/config-${release}`;
  const what = 'kernel configuration';
  if (!existsSync(path)) {
    return [{ what, state: 'advice', found: `${path} is not there`, todo: "reinstall the kernel's package" }];
  }
  const missing = missingOptions(readFileSync(path, 'utf8'));
  if (missing.length === 0) return [{ what, state: 'good', found: `all ${OPTIONS.length} options are set` }];
  return missing.map(([name, use]) => ({
    what,
    state: 'missing',
    found: `CONFIG_${name} is not set (${use})`,
    todo: "use a kernel with it; Debian's and its cloud kernels have it",
  }));
}

function existsFinding(what: string, path: string, todo: string): Finding {
  return existsSync(path)
    ? { what, state: 'good', found: path }
    : { what, state: 'missing', found: `${path} is not there`, todo };
}

function crashMemory(): Finding {
  const what = 'memory for the crash kernel';
  const bytes = reservedBytes();
  if (bytes > 0) return { what, state: 'good', found: `${bytes / 2 ** 20} MiB reserved` };
  const suggested = suggestedReservation(possibleCpus(readFileSync(POSSIBLE_CPUS, 'utf8')));
  const todo = `add crashkernel=${suggested / 2 ** 20}M to GRUB_CMDLINE_LINUX in /etc/default/grub, run update-grub, reboot (or the like for your boot loader)`;
  return { what, state: 'missing', found: 'none reserved', todo };
}

/** Programs and the Debian package of each. */
const PROGRAMS = [
  ['mkinitramfs', 'initramfs-tools'],
  ['mksquashfs', 'squashfs-tools'],
  ['criu', 'criu'],
  ['systemctl', 'systemd'],
  ['systemd-run', 'systemd'],
  ...TOOLS,
  ['ip', 'iproute2'],
] as const;

function programs(): Finding[] {
  return PROGRAMS.map(([name, packageName]) => {
    const path = findProgram(name);
    return path === undefined
      ? { what: name, state: 'missing', found: 'not installed', todo: `apt-get install ${packageName}` }
      : { what: name, state: 'good', found: path };
  });
}

/**
 * Whether there are kexec-tools: they load the crash kernel only where `arm` cannot, which it does with stage
 * zero.
 * @param obstacle why there can be no stage zero; undefined if nothing is known
 */
export function kexecTools(path: string | undefined, obstacle: string | undefined): Finding {
  const what = 'kexec';
  if (path !== undefined) return { what, state: 'good', found: path };
  const install = 'apt-get install kexec-tools';
  const found = 'not installed';
  return obstacle === undefined
    ? { what, state: 'advice', found, todo: `${install}: only they load a crash kernel if arm cannot` }
    : { what, state: 'missing', found, todo: `${install}: arm cannot load the crash kernel, as ${obstacle}` };
}

/** The oldest version whose images are written the way they are here. */
const OLDEST_CRIU = [3, 17];

function criuVersion(): Finding {
  const what = 'CRIU version';
  const criu = findProgram('criu');
  if (criu === undefined) return { what, state: 'missing', found: 'none', todo: 'apt-get install criu' };
  const version = /Version: (\d+)\.(\d+)[^\n]*/.exec(runProgram(criu, ['--version']));
  const [major = 0, minor = 0] = version?.slice(1, 3).map(Number) ?? [];
  const [oldestMajor = 0, oldestMinor = 0] = OLDEST_CRIU;
  const good = major > oldestMajor || (major === oldestMajor && minor >= oldestMinor);
  const found = version?.[0].replace('Version: ', '') ?? 'unknown';
  return good
    ? { what, state: 'good', found }
    : { what, state: 'missing', found, todo: `install CRIU ${OLDEST_CRIU.join('.')} or newer` };
}

function sysctls(config: Config): Finding[] {
  return panicSysctls(config).map(({ name, now, wanted }) => {
    const what = `kernel.${name}`;
    if (now === wanted) return { what, state: 'good', found: now };
    if (now === undefined) {
      return {
        what,
        state: 'advice',
        found: 'this kernel has none',
        todo: 'nothing: that kind of death does not panic here',
      };
    }
    return { what, state: 'advice', found: now, todo: `otherworld arm sets it to ${wanted}` };
  });
}

function rival(): Finding {
  const what = 'other crash kernels';
  const others = ['kdump-tools', 'kdump'].filter((unit) =>
    existsSync(`/etc/systemd/system/multi-user.target.wants/${unit}.service`),
  );
  if (others.length === 0) return { what, state: 'good', found: 'none is loaded at boot' };
  const todo = `systemctl disable --now ${others.join(' ')}`;
  return { what, state: 'missing', found: `${others.join(', ')} loads its own crash kernel`, todo };
}

const WATCHDOGS = '/sys/class/watchdog';

/**
 * A watchdog in hardware runs on when the kernel dies, and nobody answers it before the crash world's
 * systemd.
 */
export function watchdog(directory = WATCHDOGS): Finding {
  const what = 'watchdog';
  const attribute = (name: string, file: string): string | undefined => {
    const path = join(directory, name, file);
    return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
  };
  const names = existsSync(directory) ? readdirSync(directory) : [];
  const name = names.find((each) => attribute(each, 'state') === 'active');
  if (name === undefined) return { what, state: 'good', found: 'none is running' };
  const found = `${attribute(name, 'identity') ?? name} resets the machine after ${attribute(name, 'timeout')} s without an answer`;
  const todo =
    'give it more time than a resurrection takes (RuntimeWatchdogSec= in /etc/systemd/system.conf), or stop it';
  return { what, state: 'advice', found, todo };
}

/** The crash initramfs mounts the root file system as the ordinary one does, questions included. */
function rootDevice(): Finding {
  const what = 'root file system';
  const source = runProgram('findmnt', ['-no', 'SOURCE', '--nofsroot', '/']).trim();
  const layers = source.startsWith('/dev/') ? runProgram('lsblk', ['-sno', 'TYPE', source]).split(/\s+/) : [];
  if (!layers.includes('crypt')) return { what, state: 'good', found: source };
  const todo =
    'after a panic its passphrase is asked for on the console, unless the initramfs can find the key';
  return { what, state: 'advice', found: `${source}, encrypted`, todo };
}

function storage(config: Config): Finding {
  const { directory } = config.images;
  let existing = directory;
  while (!existsSync(existing)) existing = dirname(existing);
  const what = 'storage for images';
  if (!statSync(existing).isDirectory()) {
    return { what, state: 'missing', found: `${existing} is no directory`, todo: 'change images.directory' };
  }
  const distrusted = pathProblem(directory, 'allowed');
  if (distrusted !== undefined) {
    return {
      what,
      state: 'missing',
      found: distrusted,
      todo: `what processes hold in memory is kept there: ${IMAGES_REMEDY}`,
    };
  }
  return roomFinding(
    lookAtRoom(() => protectedNow(config), config),
    memoryBytes(),
  );
}

function memoryBytes(): number {
  return Number(/^MemTotal:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024;
}

/** Whether there is room for the images of what is protected now, and of what may be. */
export function roomFinding(looked: RoomFound | RoomUnknown, memory: number): Finding {
  const what = 'storage for images';
  if (looked.need === undefined) {
    const todo = 'find out what does not answer, and call otherworld doctor again';
    return { what, state: 'advice', found: looked.unknown, todo };
  }
  const { need, room, problem, ...others } = looked;
  const found = sayRoom(need.processes, room);
  if (problem !== undefined) return { what, state: 'missing', found, todo: problem };
  const todos = roomSentences({ problem: undefined, ...others });
  if (todos[0] !== undefined) return { what, state: 'advice', found, todo: todos.join('; ') };
  if (room.bytes > memory / 2) return { what, state: 'good', found };
  const todo =
    'protected processes whose memory does not fit cannot come back: make room, or set images.directory';
  return { what, state: 'advice', found, todo };
}

/** What the system would run as root at each boot. */
function installation(): Finding {
  const what = 'installation';
  const problem = installationProblem();
  if (problem === undefined) return { what, state: 'good', found: `${INSTALLATION} is root's alone` };
  if (!unitsAreInstalled()) {
    const found = `${problem}: arm --install refuses it`;
    return { what, state: 'advice', found, todo: INSTALLATION_REMEDY };
  }
  const found = `${problem}, and root runs it at every boot`;
  return { what, state: 'missing', found, todo: `${INSTALLATION_REMEDY}; then arm --install from there` };
}
