import type { LossKind } from '../../model/loss.ts';
import type { Moment } from '../../model/verdict.ts';
import { ChangingError, type VmcoreError } from '../../vmcore/errors.ts';

/** What is of the moment because it changed while it was read; undefined of what is wrong. */
export function momentOfError(error: VmcoreError): Moment | undefined {
  return error instanceof ChangingError ? 'passing' : undefined;
}

/** What a refused file can be instead: a loss, where that is allowed. */
export interface PossibleLoss {
  readonly kind: LossKind;
  /** Why it cannot be kept, after "it is one ": `that was being worked on when the kernel died`. */
  readonly why: string;
}

/** A file that cannot be brought back. The reason goes on after "the process ": `has an open io_uring`. */
export class FileRefusal extends Error {
  override readonly name = 'FileRefusal';
  readonly reason: string;
  /**
   * Address of the `struct file` that it is about, where that is known: an epoll is refused for what it
   * watches.
   */
  file: bigint | undefined;
  /** What makes the reason one of the moment. */
  readonly moment: Moment | undefined;
  /** Undefined if the process cannot do without it. */
  readonly loss: PossibleLoss | undefined;
  /** No sound kernel has it: nothing that a program could make up for. */
  isDamage = false;

  constructor(reason: string, moment?: Moment, loss?: PossibleLoss) {
    super(reason);
    this.reason = reason;
    this.moment = moment;
    this.loss = loss;
  }

  /**
   * Of what cannot be read, because of `error`; of the moment if that is because it changes.
   *
   * @param what the reason up to "cannot be read"
   */
  static unreadable(what: string, error: VmcoreError): FileRefusal {
    const reason = `${what}cannot be read: ${error.message}`;
    const moment = momentOfError(error);
    return moment === undefined ? FileRefusal.damaged(reason) : new FileRefusal(reason, moment);
  }

  /** Of what no sound kernel has. */
  static damaged(reason: string): FileRefusal {
    const refusal = new FileRefusal(reason);
    refusal.isDamage = true;
    return refusal;
  }
}
