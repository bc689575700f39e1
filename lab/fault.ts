import { setTimeout as sleep } from 'node:timers/promises';
import { answers, dropConnection, execChecked, LOOK_SECONDS } from './channel.ts';
import { cpuState } from './cpu-state.ts';
import { withDebugger } from './debugger.ts';
import { LabError, WrongUse } from './error.ts';
import { guestPaths, guestPid, readRunningGuest } from './guest.ts';
import { guestClock } from './guest-time.ts';
import { type Qmp, withQmp } from './qmp.ts';

/** Ways to kill a guest's kernel. */
export const faults = ['sysrq', 'bug', 'oops', 'nmi', 'nmi-entry', 'hang'] as const;
export type Fault = (typeof faults)[number];

/** @throws WrongUse for an unknown name */
export function parseFault(name: string): Fault {
  const fault = faults.find((known) => known === name);
  if (!fault) throw new WrongUse(`unknown way to panic: ${name}; there are ${faults.join(', ')}`);
  return fault;
}

/**
 * A system call that nothing uses on its own, so that the fault strikes when the lab says so and in its
 * process.
 */
const VICTIM = '__x64_sys_sethostname';
const CALL_VICTIM = 'hostname otherworld';

/** `ud2`, the instruction that BUG() compiles to. */
const UD2 = Buffer.from('0f0b', 'hex');
/** `mov 0x10,%rax`: reads through a bad pointer, as a structure's member of a null pointer would. */
const BAD_POINTER = Buffer.from('488b042510000000', 'hex');

/** `cli`, and `jmp` to itself. */
const ENDLESS_LOOP = Buffer.from('faebfe', 'hex');

/**
 * Does to the guest's kernel what kills it; returns at once, a moment before it dies.
 * @param cpu the one on which it is to die; undefined: any
 * @throws LabError if the fault cannot be placed
 */
export async function strike(name: string, fault: Fault, cpu?: number): Promise<void> {
  if (cpu !== undefined) checkCpu(name, fault, cpu);
  switch (fault) {
    case 'sysrq':
      return runLater(name, 'echo c > /proc/sysrq-trigger', cpu);
    case 'bug':
      await plant(name, UD2);
      return runLater(name, CALL_VICTIM, cpu);
    case 'oops':
      await plant(name, BAD_POINTER);
      return runLater(name, CALL_VICTIM, cpu);
    case 'nmi':
      await guestShell(name, PANIC_ON_NMI);
      return injectNmi(name);
    case 'nmi-entry':
      await guestShell(name, PANIC_ON_NMI);
      await stopInEntryCode(name);
      await injectNmi(name);
      return withQmp(guestPaths(name).qmp, async (qmp) => void (await qmp.execute('cont')));
    case 'hang':
      await guestShell(name, PANIC_ON_NMI);
      await hang(name);
      return injectNmi(name);
  }
}

/** Has the kernel panic at a fault after which it would go on otherwise, as it does where it is not armed. */
export async function makeFatal(name: string, fault: Fault): Promise<void> {
  if (fault === 'bug' || fault === 'oops') await guestShell(name, 'echo 1 > /proc/sys/kernel/panic_on_oops');
}

const PANIC_ON_NMI = 'echo 1 > /proc/sys/kernel/unknown_nmi_panic';

/** As a watchdog or a management controller does, which is outside of the machine. */
async function injectNmi(name: string): Promise<void> {
  await withQmp(guestPaths(name).qmp, (qmp) => qmp.execute('inject-nmi'));
}

/** Stops that a CPU in the entry code takes at most, where the guest makes system calls all the time. */
const MOST_STOPS = 5000;

/**
 * Stops the guest at a moment at which one of its CPUs, or several, are in the kernel's entry code.
 * @returns which
 */
export async function stopInEntryCode(name: string): Promise<number[]> {
  const { cpus } = readRunningGuest(name);
  const symbols = await guestShell(name, `grep -E ' __entry_text_(start|end)$' /proc/kallsyms`);
  const [start = 0n, end = 0n] = symbols
    .trim()
    .split('\n')
    .map((line) => BigInt(`0x${line.split(' ')[0]}`))
    .sort((a, b) => (a < b ? -1 : 1));
  for (let stops = 0; stops < MOST_STOPS; stops++) {
    const caught = await withQmp(guestPaths(name).qmp, (qmp) => stopAndLook(qmp, cpus, start, end));
    if (caught.length > 0) return caught;
  }
  throw new LabError(`no CPU of ${name} was in the kernel's entry code in ${MOST_STOPS} looks`);
}

/** The CPUs that are between two addresses: if none is, the guest goes on. */
async function stopAndLook(qmp: Qmp, cpus: number, start: bigint, end: bigint): Promise<number[]> {
  await qmp.execute('stop');
  const caught: number[] = [];
  for (let cpu = 0; cpu < cpus; cpu++) {
    const ip = BigInt(`0x${(await cpuState(qmp, cpu)).ip}`);
    if (ip >= start && ip < end) caught.push(cpu);
  }
  if (caught.length === 0) await qmp.execute('cont');
  return caught;
}

/**
 * Sends every CPU into an endless loop with interrupts off: nothing in the guest can tell any more that it
 * hangs.
 */
async function hang(name: string): Promise<void> {
  const { cpus } = readRunningGuest(name);
  await plant(name, ENDLESS_LOOP);
  // All at once: a CPU that hangs answers no other's request.
  const start = `at=$(($(date +%s) + 3)); for cpu in $(seq 0 ${cpus - 1}); do
    taskset -c $cpu sh -c "while [ \\$(date +%s) -lt $at ]; do :; done; exec ${CALL_VICTIM}" & done`;
  await runLater(name, start, undefined);
  await dropConnection(name);
  const elapsed = guestClock(guestPid(name) ?? 0);
  while (!(await anyLoops(name, cpus)) || (await answers(name, HUNG_SECONDS))) {
    if (elapsed() > LOOK_SECONDS) throw new LabError(`guest ${name} does not hang`);
  }
}

/**
 * A guest in which a CPU loops, and that does not answer for so long, hangs: the others wait for that CPU.
 */
const HUNG_SECONDS = 10;

async function anyLoops(name: string, cpus: number): Promise<boolean> {
  return withQmp(guestPaths(name).qmp, async (qmp) => {
    for (let cpu = 0; cpu < cpus; cpu++) if (await loops(qmp, cpu)) return true;
    return false;
  });
}

/** Whether a CPU has interrupts off and is at the same instruction as a moment ago. */
async function loops(qmp: Qmp, cpu: number): Promise<boolean> {
  const first = await cpuState(qmp, cpu);
  await sleep(500);
  const second = await cpuState(qmp, cpu);
  return !first.interrupts && !second.interrupts && first.ip === second.ip;
}

function guestShell(name: string, script: string): Promise<string> {
  return execChecked(name, ['sh', '-c', script], { timeoutSeconds: LOOK_SECONDS });
}

/** @throws WrongUse if a fault cannot be made to strike on that CPU */
export function checkCpu(name: string, fault: Fault, cpu: number): void {
  if (fault === 'nmi' || fault === 'nmi-entry' || fault === 'hang')
    throw new WrongUse('--cpu: QEMU gives an NMI to all CPUs; --by sysrq, bug or oops');
  const { cpus } = readRunningGuest(name);
  if (cpu >= cpus) throw new WrongUse(`--cpu ${cpu}: guest ${name} has CPUs 0 to ${cpus - 1}`);
}

/** In the background of the guest, so that our own connection is closed in order before the kernel dies. */
async function runLater(name: string, script: string, cpu: number | undefined): Promise<void> {
  const pin = cpu === undefined ? '' : `taskset -pc ${cpu} $$; `;
  await guestShell(name, `sh -c 'sleep 0.5; ${pin}${script}' </dev/null >/dev/null 2>&1 &`);
}

/** Puts machine code over the beginning of a function of the running kernel. */
async function plant(name: string, code: Buffer): Promise<void> {
  await overwriteMemory(name, await physicalAddressOf(name, VICTIM), code);
}

/**
 * Overwrites a guest's physical memory, through QEMU's gdbstub.
 * @throws LabError if it does not read what was written
 */
export async function overwriteMemory(name: string, physical: number, bytes: Buffer): Promise<void> {
  await withDebugger(name, async (remote) => {
    await remote.write(physical, bytes);
    if (!(await remote.read(physical, bytes.length)).equals(bytes)) {
      throw new LabError(`the guest's memory at 0x${physical.toString(16)} did not take the bytes`);
    }
  });
}

/**
 * The kernel's text is one physical range: where it begins is in /proc/iomem, where a function is in
 * kallsyms.
 */
async function physicalAddressOf(name: string, functionName: string): Promise<number> {
  const answer = await guestShell(
    name,
    `grep 'Kernel code' /proc/iomem; grep -E ' (_text|${functionName})$' /proc/kallsyms`,
  );
  const textPhysical = /([0-9a-f]+)-[0-9a-f]+ : Kernel code/.exec(answer)?.[1];
  const text = /^([0-9a-f]+) \w _text$/m.exec(answer)?.[1];
  const target = new RegExp(`^([0-9a-f]+) \\w ${functionName}$`, 'm').exec(answer)?.[1];
  if (!textPhysical || !text || !target)
    throw new LabError(`cannot find ${functionName} in the kernel of ${name}`);
  return Number.parseInt(textPhysical, 16) + Number(BigInt(`0x${target}`) - BigInt(`0x${text}`));
}
