import type { Moment } from '../../model/verdict.ts';

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

  constructor(reason: string, moment?: Moment) {
    super(reason);
    this.reason = reason;
    this.moment = moment;
  }
}
