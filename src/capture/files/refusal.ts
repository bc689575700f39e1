import type { LossKind } from '../../model/loss.ts';
import type { Moment } from '../../model/verdict.ts';

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

  /** Of what no sound kernel has. */
  static damaged(reason: string): FileRefusal {
    const refusal = new FileRefusal(reason);
    refusal.isDamage = true;
    return refusal;
  }
}
