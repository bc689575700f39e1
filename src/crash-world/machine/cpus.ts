import { readFileSync, writeFileSync } from 'node:fs';
import { messageOf } from '../../system/thrown.ts';

const CPUS = '/sys/devices/system/cpu';

/** A list as sysfs writes it: `0-2,5`. */
export function parseCpuList(text: string): number[] {
  return text
    .trim()
    .split(',')
    .filter(Boolean)
    .flatMap((part) => {
      const [first = 0, last = first] = part.split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, index) => first + index);
    });
}

/**
 * Why CPUs of the dead world are missing, for the report; empty if none is.
 * @param commandLine of the crash kernel
 */
export function missingCpus(before: number, online: number, commandLine: string): string[] {
  if (online >= before) return [];
  const used = `${online} of ${before} CPUs are used; `;
  const limit = Number(/(?:^|\s)nr_cpus=(\d+)/.exec(commandLine)?.[1] ?? before);
  if (limit < before) return [`${used}nr_cpus= of the crash kernel's command line allows no more`];
  return [
    `${used}the processor that the firmware booted stays off when another one panicked, because starting it again would reset the machine`,
  ];
}

/**
 * Starts the CPUs that are still off: those that did not start in the initramfs are tried again.
 * @returns how many are online now, and those that did not start, with the kernel's reason
 */
export function startCpus(): { online: number; failed: string[] } {
  const list = (name: string): number[] => parseCpuList(readFileSync(`${CPUS}/${name}`, 'utf8'));
  const online = new Set(list('online'));
  const failed: string[] = [];
  for (const cpu of list('present')) {
    if (online.has(cpu)) continue;
    try {
      writeFileSync(`${CPUS}/cpu${cpu}/online`, '1');
      online.add(cpu);
    } catch (error) {
      failed.push(`CPU ${cpu} did not start: ${messageOf(error)}`);
    }
  }
  return { online: online.size, failed };
}

/** The APIC ids of the CPUs that this kernel uses, as the processors themselves say. */
export function runningApicIds(cpuinfo = readFileSync('/proc/cpuinfo', 'utf8')): Set<number> {
  return new Set([...cpuinfo.matchAll(/^initial apicid\s*:\s*(\d+)$/gm)].map(([, id]) => Number(id)));
}
