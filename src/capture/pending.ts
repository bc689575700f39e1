import { constants } from 'node:os';
import { readPending } from '../linux/signal.ts';
import type { Kernel } from '../vmcore/kernel.ts';

const { SIGKILL, SIGSTOP } = constants.signals;

/** Pending signals as far as they can be queued again, and what the others mean. */
export interface CapturedPending {
  /** siginfo_t of each, in order. */
  readonly signals: readonly Uint8Array[];
  /** SIGKILL is pending: the process was about to end. */
  readonly killed: boolean;
  /** SIGSTOP is pending: the process was about to stop, and comes back stopped. */
  readonly stopped: boolean;
}

/** Reads a `struct sigpending`: its list and its mask. Throws a VmcoreError if the list is damaged. */
export function capturePending(kernel: Kernel, list: bigint, mask: bigint): CapturedPending {
  const pending = readPending(kernel, list, mask);
  return {
    signals: pending.flatMap(({ signal, info }) => (signal === SIGKILL || signal === SIGSTOP ? [] : [info])),
    killed: pending.some(({ signal }) => signal === SIGKILL),
    stopped: pending.some(({ signal }) => signal === SIGSTOP),
  };
}
