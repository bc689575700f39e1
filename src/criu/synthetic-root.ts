import { listedRuns } from '../model/page-runs.ts';
import type { Process, Thread } from '../model/process.ts';
import { PAGE_SIZE } from '../system/page.ts';

/**
 * Where its only page is. Not the lowest address that may be mapped: CRIU looks for room for its own code from there on, and
 * does not see that the last area of a process is in the way.
 */
const CODE = 0x400000;
/** xor edi, edi; mov eax, 231 (exit_group); syscall; ud2 */
const exitGroup = Uint8Array.from([0x31, 0xff, 0xb8, 0xe7, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x0f, 0x0b]);
const FCW = 0x37f;
const MXCSR = 0x1f80;
const MXCSR_MASK = 0xffff;

function initialFxsave(): Uint8Array {
  const fxsave = Buffer.alloc(512);
  fxsave.writeUInt16LE(FCW, 0);
  fxsave.writeUInt32LE(MXCSR, 24);
  fxsave.writeUInt32LE(MXCSR_MASK, 28);
  return fxsave;
}

function thread(pid: number, model: Thread): Thread {
  const zero = { r15: 0n, r14: 0n, r13: 0n, r12: 0n, bp: 0n, bx: 0n, r11: 0n, r10: 0n, r9: 0n, r8: 0n };
  return {
    tid: pid,
    comm: 'otherworld-root',
    registers: {
      ...zero,
      ...{ ax: 0n, cx: 0n, dx: 0n, si: 0n, di: 0n, origAx: 0xffff_ffff_ffff_ffffn },
      ...{ ip: BigInt(CODE), cs: 0x33n, flags: 0x202n, sp: BigInt(CODE + PAGE_SIZE), ss: 0x2bn },
      ...{ fsBase: 0n, gsBase: 0n, ds: 0n, es: 0n, fs: 0n, gs: 0n },
    },
    fpu: { fxsave: initialFxsave(), xstateBv: undefined, components: [] },
    tls: model.tls.map(({ entryNumber }) => ({ entryNumber, low: 0, high: 0 })),
    clearChildTid: 0n,
    robustList: { head: 0n, sizeBytes: 0 },
    rseq: undefined,
    blockedSignals: 0n,
    pendingSignals: [],
    altStack: { sp: 0n, sizeBytes: 0n, flags: 0 },
    parentDeathSignal: 0,
    credentials: model.credentials,
    policy: 0,
    nice: 0,
    rtPriority: 0,
    syscall: { outcome: 'resume', syscall: undefined, reason: 'never ran before' },
  };
}

/**
 * A process that ends as soon as it runs. As the root of a tree it gives several processes, or one that leads no session, a common
 * parent while CRIU rebuilds them; when it ends they become children of init, as they were or as their dead parent would have left
 * them. `pid` must be free; the rest is taken from `model`, one of the processes that it is parent of.
 */
export function syntheticRoot(pid: number, id: number, model: Process): Process {
  const [first] = model.threads;
  if (first === undefined || model.memory === undefined) throw new Error(`process ${model.pid} is a zombie`);
  const bytes = new Uint8Array(PAGE_SIZE);
  bytes.set(exitGroup);
  const end = CODE + PAGE_SIZE;
  return {
    ...model,
    ...{ pid, ppid: 0, pgid: pid, sid: pid },
    comm: 'otherworld-root',
    state: 'alive',
    stopSignal: 0,
    threads: [thread(pid, first)],
    memory: {
      ...model.memory,
      id,
      ...{ startCode: CODE, endCode: end, startData: CODE, endData: end, startStack: CODE },
      ...{ startBrk: CODE, brk: CODE, argStart: CODE, argEnd: CODE, envStart: CODE, envEnd: CODE },
      savedAuxv: [0n, 0n],
      thpDisabled: false,
      vmas: [
        {
          start: CODE,
          end,
          kind: 'anonymous',
          prot: 5,
          ...{ growsDown: false, heap: false, stack: false, hugetlb: false, locked: false, noReserve: false },
          advice: [],
          offsetBytes: 0,
          runs: listedRuns([]),
        },
      ],
      overrides: [{ address: CODE, bytes }],
    },
    ...{ filesId: id, fsId: id, sighandId: id },
    sigactions: Array.from({ length: 64 }, () => ({ handler: 0n, flags: 0n, restorer: 0n, mask: 0n })),
    sharedPendingSignals: [],
    intervalTimers: {
      real: { intervalMicroseconds: 0, remainingMicroseconds: 0 },
      virtual: { intervalMicroseconds: 0, remainingMicroseconds: 0 },
      prof: { intervalMicroseconds: 0, remainingMicroseconds: 0 },
    },
    posixTimers: [],
    childSubreaper: false,
    membarrierRegistrations: 0,
  };
}
