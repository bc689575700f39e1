import { readPending } from '../linux/signal.ts';
import type { Kernel } from '../vmcore/kernel.ts';

const SIGTRAP = 5;
const SIGKILL = 9;
const SIGSTOP = 19;

export const LOSES_TRAP = 'has a pending SIGTRAP, which CRIU would take for that of its own breakpoint';

/** Pending signals as far as they can be queued again, and what the others mean. */
export interface CapturedPending {
  /** siginfo_t of each, in order. */
  readonly signals: readonly Uint8Array[];
  /** SIGKILL is pending: the process was about to end. */
  readonly killed: boolean;
  /** SIGTRAP is pending: CRIU takes it for that of its own breakpoint. */
  readonly trapped: boolean;
  /** SIGSTOP is pending: the process was about to stop, and comes back stopped. */
  readonly stopped: boolean;
}

/** Reads a `struct sigpending`: its list and its mask. Throws a VmcoreError if the list is damaged. */
export function capturePending(kernel: Kernel, list: bigint, mask: bigint): CapturedPending {
  const pending = readPending(kernel, list, mask);
  return {
    signals: pending.flatMap(({ signal, info }) => (signal === SIGKILL || signal === SIGSTOP ? [] : [info])),
    killed: pending.some(({ signal }) => signal === SIGKILL),
    trapped: pending.some(({ signal }) => signal === SIGTRAP),
    stopped: pending.some(({ signal }) => signal === SIGSTOP),
  };
}
