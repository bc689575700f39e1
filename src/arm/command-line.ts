import { CRASH_WORLD_PARAMETER, PAYLOAD_DIRECTORY } from '../config/paths.ts';
import type { Range } from '../system/range.ts';
import { ArmError } from './errors.ts';
import { memmapParameter } from './iomem.ts';

/**
 * COMMAND_LINE_SIZE of x86-64 without the final zero byte, and without the `elfcorehdr=0x... ` that the
 * kernel adds.
 */
const LONGEST_COMMAND_LINE = 2047 - 'elfcorehdr=0x123456789abcdef0 '.length;

/**
 * Parameters of the main kernel that are wrong for the crash kernel: about other memory, another init or the
 * loader.
 */
const DROPPED = new Set(
  `BOOT_IMAGE initrd kexec_jump_back_entry crashkernel init rdinit mem memmap maxcpus nr_cpus possible_cpus hugepages
  numa hugepagesz default_hugepagesz hugetlb_cma cma movablecore kernelcore memhp_default_state panic resume resume_offset
  lpj swiotlb disable_cpu_apicid single emergency rescue systemd.unit elfcorehdr`.split(/\s+/),
);

/** pid_max is the kernel's PID_MAX_LIMIT: any number may be wanted. */
const PID_MAX = 2 ** 22;
/**
 * Numbers of the crash world's first processes, and of threads of its kernel that are made with them, before
 * its program chooses a range that is clear of the dead world's. The numbers that a machine comes to last, or
 * never if its own pid_max is lower; and room for the thousands of processes that an initramfs may start.
 */
const FIRST_PID = PID_MAX - 8192;
const PID_PARAMETERS = [`sysctl.kernel.pid_max=${PID_MAX}`, `sysctl.kernel.ns_last_pid=${FIRST_PID - 1}`];

/**
 * Bounce buffers for devices that reach only the first 4 GiB. The kernel's default of 64 MiB, which it takes
 * wherever there is memory above them, is a fourth of what kdump reserves.
 */
export const BOUNCE_BYTES = 8 * 2 ** 20;
/** IO_TLB_SIZE (include/linux/swiotlb.h). */
const BOUNCE_SLAB = 2048;

/**
 * `swiotlb=` with a size for the crash kernel, in one area (the kernel makes one for each processor and each
 * as large as it must be), and what the main kernel's says of forcing.
 */
function bounceParameter(main: string): string {
  const forcing = /\b(?:no)?force$/.exec(parameterValue(main, 'swiotlb') ?? '');
  return [`swiotlb=${BOUNCE_BYTES / BOUNCE_SLAB}`, 1, ...(forcing ?? [])].join(',');
}

/** What the crash kernel's command line is made from. */
export interface CommandLineInputs {
  /** /proc/cmdline of the main kernel. */
  readonly main: string;
  /** Old memory to take back. */
  readonly ranges: readonly Range[];
  /**
   * Loops per jiffy of the main kernel, so that no CPU has to be calibrated again; undefined if not known.
   */
  readonly loopsPerJiffy: number | undefined;
  /**
   * APIC id of the processor that the firmware boots. If another one panics, this one must not be started
   * again: INIT would reset the machine. Kernels before 6.7 have to be told, newer ones see it themselves
   * (arch/x86/kernel/cpu/topology.c).
   */
  readonly bootApicId: number | undefined;
  /** The main kernel's timer interrupt is known to arrive through the I/O APIC. */
  readonly timerWorks: boolean;
  /** Seconds after which a panic of the crash kernel reboots; 0 waits for ever. */
  readonly rebootAfterSeconds: number;
  readonly add: readonly string[];
  readonly remove: readonly string[];
}

/**
 * The crash kernel's command line: the main kernel's (root=, console=, what drivers need), without what
 * concerns its memory, and with what makes a crash world: one CPU at first (maxcpus, not nr_cpus: its
 * initramfs starts the others), hot-added memory offline until a block is wanted, our init.
 * @throws ArmError if there is no root= or the line is too long for the kernel
 */
export function crashCommandLine(inputs: CommandLineInputs): string {
  const kept = splitCommandLine(inputs.main).filter((parameter) => {
    const name = parameterName(parameter);
    return !DROPPED.has(name) && !inputs.remove.includes(name) && !name.startsWith('otherworld.');
  });
  if (!kept.some((parameter) => parameterName(parameter) === 'root')) {
    throw new ArmError(
      'the kernel was booted without root=, so the crash world would not find its root file system',
    );
  }
  const line = [
    ...kept,
    'maxcpus=1',
    'reset_devices',
    `init=${PAYLOAD_DIRECTORY}/init`,
    CRASH_WORLD_PARAMETER,
    `panic=${inputs.rebootAfterSeconds}`,
    ...PID_PARAMETERS,
    'memhp_default_state=offline',
    'modprobe.blacklist=nd_pmem',
    bounceParameter(inputs.main),
    ...(inputs.timerWorks ? ['no_timer_check'] : []),
    ...(inputs.loopsPerJiffy === undefined ? [] : [`lpj=${inputs.loopsPerJiffy}`]),
    ...(inputs.bootApicId === undefined ? [] : [`disable_cpu_apicid=${inputs.bootApicId}`]),
    ...inputs.ranges.map(memmapParameter),
    ...inputs.add,
  ].join(' ');
  if (line.length > LONGEST_COMMAND_LINE) {
    throw new ArmError(
      `the crash kernel's command line would have ${line.length} bytes, the kernel takes ${LONGEST_COMMAND_LINE}; ` +
        'take parameters away with crash-kernel.remove-parameters in /etc/otherworld/otherworld.toml',
    );
  }
  return line;
}

/**
 * Parameters are separated by blanks; a value may be in double quotes and then hold blanks (lib/cmdline.c).
 */
export function splitCommandLine(line: string): string[] {
  return line.match(/(?:[^\s"]|"[^"]*")+/g) ?? [];
}

/** The value of a parameter that is given; of the last one, if it is given several times. */
export function parameterValue(line: string, name: string): string | undefined {
  const last = splitCommandLine(line).findLast((parameter) => parameterName(parameter) === name);
  return last?.slice(name.length + 1);
}

/** The name of a parameter; the kernel takes `-` for `_`. */
function parameterName(parameter: string): string {
  return parameter.split('=', 1)[0] ?? parameter;
}

/**
 * Loops per jiffy as the kernel computed them at boot, from /proc/cpuinfo (`bogomips` is lpj * HZ / 500000,
 * with two digits) and the kernel's configuration (CONFIG_HZ).
 * @returns undefined if either is not there
 */
export function loopsPerJiffy(cpuinfo: string, kernelConfig: string): number | undefined {
  const bogomips = Number(/^bogomips\s*:\s*([0-9.]+)$/m.exec(cpuinfo)?.[1]);
  const hz = Number(/^CONFIG_HZ=(\d+)$/m.exec(kernelConfig)?.[1]);
  return bogomips > 0 && hz > 0 ? Math.round((bogomips * 500_000) / hz) : undefined;
}

/**
 * Whether the main kernel has tried its timer interrupt at boot and found that it arrives the first way,
 * directly through the I/O APIC (check_timer in arch/x86/kernel/apic/io_apic.c). The crash kernel need not
 * try again then: the trial waits for some interrupts within some loops of the processor, and where a busy
 * host gives neither, it panics.
 * @param log the kernel's log of this boot, or what is left of it
 */
export function timerWorks(log: string): boolean {
  return /\.\.TIMER: vector=/.test(log) && !/8254 timer not connected to IO-APIC/.test(log);
}

/** The APIC id of the first processor in /proc/cpuinfo, which is the one that the firmware boots. */
export function bootApicId(cpuinfo: string): number | undefined {
  const id = /^initial apicid\s*:\s*(\d+)$/m.exec(cpuinfo)?.[1];
  return id === undefined ? undefined : Number(id);
}
