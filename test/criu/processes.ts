import type { RestorePlan } from '../../src/criu/images/plan/restore-plan.ts';
import { noFiles } from '../../src/model/file.ts';
import type { ProcessGroup } from '../../src/model/group.ts';
import type { AddressSpace, Vma } from '../../src/model/memory.ts';
import { listedRuns } from '../../src/model/page-runs.ts';
import type { Process, Thread } from '../../src/model/process.ts';
import { newFindings } from '../../src/model/verdict.ts';

/** An anonymous area with nothing special about it. */
export function areaOf(start: number, pages: number, over: Partial<Vma> = {}): Vma {
  return {
    start,
    end: start + pages * 4096,
    kind: 'anonymous',
    prot: 3,
    ...{ growsDown: false, heap: false, stack: false, hugetlb: false, locked: false, noReserve: false },
    advice: [],
    offsetBytes: 0,
    runs: listedRuns([]),
    ...over,
  };
}

/** An address space with the given areas. */
export function memoryOf(vmas: readonly Vma[], over: Partial<AddressSpace> = {}): AddressSpace {
  return {
    id: 1,
    ...{
      startCode: 0x400000,
      endCode: 0x401000,
      startData: 0x402000,
      endData: 0x403000,
      startStack: 0x7ff000,
    },
    ...{
      startBrk: 0x500000,
      brk: 0x501000,
      argStart: 0x7ff100,
      argEnd: 0x7ff110,
      envStart: 0x7ff110,
      envEnd: 0x7ff200,
    },
    savedAuxv: [6n, 4096n, 0n, 0n],
    dumpable: 1,
    thpDisabled: false,
    protectionKeys: [],
    exeFileId: 1,
    vmas,
    ...over,
  };
}

/** A thread of user 1000 that was asleep. */
export function threadOf(tid: number, over: Partial<Thread> = {}): Thread {
  const registers = {
    r15: 15n,
    r14: 14n,
    r13: 13n,
    r12: 12n,
    bp: 0n,
    bx: 0n,
    r11: 0x246n,
    r10: 0n,
    r9: 0n,
    r8: 0n,
  };
  return {
    tid,
    comm: `thread-${tid}`,
    registers: {
      ...registers,
      ...{ ax: 0n, cx: 0n, dx: 0n, si: 0n, di: 0n, origAx: 0xffff_ffff_ffff_ffffn, ip: 0x400100n, cs: 0x33n },
      ...{
        flags: 0x246n,
        sp: 0x7fe000n,
        ss: 0x2bn,
        fsBase: 0x7000n,
        gsBase: 0n,
        ds: 0n,
        es: 0n,
        fs: 0n,
        gs: 0n,
      },
    },
    fpu: {
      fxsave: new Uint8Array(512).fill(1),
      xstateBv: 7n,
      components: [{ number: 2, data: new Uint8Array(256) }],
    },
    tls: [{ entryNumber: 12, low: 0, high: 0 }],
    clearChildTid: 0x7abcn,
    robustList: { head: 0x7def0n, sizeBytes: 24 },
    rseq: { pointer: 0x7000n, sizeBytes: 32, signature: 0x53053053, criticalSection: 0n },
    blockedSignals: 0x10000n,
    pendingSignals: [],
    altStack: { sp: 0n, sizeBytes: 0n, flags: 2 },
    parentDeathSignal: 0,
    credentials: {
      ...{ uid: 1000, gid: 1000, euid: 1000, egid: 1000, suid: 1000, sgid: 1000, fsuid: 1000, fsgid: 1000 },
      groups: [4, 1000],
      ...{
        capInheritable: 0n,
        capPermitted: 0n,
        capEffective: 0n,
        capBounding: 0x1ff_ffff_ffffn,
        capAmbient: 0n,
      },
      securebits: 0,
      noNewPrivs: false,
    },
    ...{ policy: 0, nice: -3, rtPriority: 0 },
    syscall: { outcome: 'restart', syscall: 'poll', reason: '' },
    ...over,
  };
}

const timer = { intervalMicroseconds: 0, remainingMicroseconds: 0 };

/** A process with one thread. */
export function processOf(pid: number, over: Partial<Process> = {}): Process {
  return {
    ...{ pid, ppid: 1, pgid: pid, sid: pid, comm: 'subject', state: 'alive', exitCode: 0, stopSignal: 0 },
    threads: [threadOf(pid)],
    memory: memoryOf([areaOf(0x400000, 1)], { id: pid }),
    ...{ filesId: pid, fsId: pid, sighandId: pid, cwdFileId: 2, rootFileId: 3, umask: 0o22, personality: 0 },
    sigactions: Array.from({ length: 64 }, (_, i) => ({
      handler: BigInt(i),
      flags: 0n,
      restorer: 0n,
      mask: 0n,
    })),
    sharedPendingSignals: [],
    intervalTimers: { real: timer, virtual: timer, prof: timer },
    posixTimers: [],
    limits: Array.from({ length: 16 }, () => ({ soft: 1024n, hard: 0xffff_ffff_ffff_ffffn })),
    ...{ oomScoreAdj: 0, childSubreaper: false, loginuid: 0xffff_ffff, membarrierRegistrations: 0 },
    findings: newFindings(),
    ...over,
  };
}

/** A group of these processes, without files. */
export function groupOf(processes: readonly Process[]): ProcessGroup {
  return {
    id: processes[0]?.pid ?? 0,
    freePid: 199_999,
    processes,
    files: noFiles,
    sharedMemory: [],
    segments: [],
    semaphores: [],
    messageQueues: [],
    clocks: { monotonic: 123_000_000_456n, boottime: 124_000_000_456n },
  };
}

/** A plan of a restore after which nothing is left to be set. */
export const lateNothing: RestorePlan = {
  ...{ pids: [process.pid], numbers: [], options: [], journalSockets: [], personality: 0 },
  ...{ affinities: [], ioPriorities: [], timerSlacks: [], coredumpFilters: [] },
  ...{
    sockets: [],
    brokenConnections: [],
    lateNames: [],
    exclusiveTerminals: [],
    wallClockTimers: [],
    fifos: [],
    pressureTriggers: [],
    memoryKeys: [],
    mdwe: [],
    memoryLocks: [],
    signals: [],
  },
  rings: [],
  aioRequests: 0,
  entries: 0,
};
