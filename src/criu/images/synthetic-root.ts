import { runningArchitecture } from '../../arch/index.ts';
import { listedRuns } from '../../model/page-runs.ts';
import type { Process, Thread } from '../../model/process.ts';
import { PAGE_SIZE } from '../../system/page.ts';

/**
 * Where its only page is. Not the lowest address that may be mapped: CRIU looks for room for its own code
 * from there on, and does not see that the last area of a process is in the way.
 */
const CODE = 0x400000;
const { programStart } = runningArchitecture();

function thread(pid: number, model: Thread): Thread {
  return {
    tid: pid,
    comm: 'otherworld-root',
    ...programStart.start(CODE, CODE + PAGE_SIZE),
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
 * A process that ends as soon as it runs. As the root of a tree it gives several processes, or one that leads
 * no session, a common parent while CRIU rebuilds them; when it ends they become children of init, as they
 * were or as their dead parent would have left them. `pid` must be free; the rest is taken from `model`, one
 * of the processes that it is parent of.
 */
export function syntheticRoot(pid: number, id: number, model: Process): Process {
  const [first] = model.threads;
  if (first === undefined || model.memory === undefined) throw new Error(`process ${model.pid} is a zombie`);
  const bytes = new Uint8Array(PAGE_SIZE);
  bytes.set(programStart.exit);
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
