import * as z from 'zod';
import { guestPaths } from './guest.ts';
import { type Qmp, withQmp } from './qmp.ts';

/** What a CPU of a guest does at this moment, as QEMU's `info registers` tells. */
export interface CpuState {
  /** Address of the next instruction, hexadecimal. */
  ip: string;
  /** Whether interrupts can come (EFLAGS.IF). */
  interrupts: boolean;
  /** Whether it waits for one, in HLT. */
  halted: boolean;
}

const EFLAGS_IF = 0x200;

/** @throws if QEMU's answer has none of the three */
export async function cpuState(qmp: Qmp, cpu: number): Promise<CpuState> {
  const answer = await qmp.execute('human-monitor-command', {
    'command-line': 'info registers',
    'cpu-index': cpu,
  });
  const text = z.string().parse(answer);
  const [ip, flags, halted] = [/RIP=([0-9a-f]+)/, /RFL=([0-9a-f]+)/, /HLT=([01])/].map(
    (field) => field.exec(text)?.[1],
  );
  if (ip === undefined || flags === undefined || halted === undefined) {
    throw new Error(`QEMU's 'info registers' of CPU ${cpu} has no RIP, RFL or HLT: ${text}`);
  }
  return { ip, interrupts: (Number.parseInt(flags, 16) & EFLAGS_IF) !== 0, halted: halted === '1' };
}

/** A line for each CPU of a guest: where it is and what it waits for. */
export function describeCpus(name: string, cpus: number): Promise<string> {
  return withQmp(guestPaths(name).qmp, async (qmp) => {
    const lines: string[] = [];
    for (let cpu = 0; cpu < cpus; cpu++) {
      const { ip, interrupts, halted } = await cpuState(qmp, cpu);
      lines.push(
        `CPU ${cpu}: ${halted ? 'halted' : 'running'} at 0x${ip}, interrupts ${interrupts ? 'on' : 'off'}`,
      );
    }
    return lines.join('\n');
  });
}
