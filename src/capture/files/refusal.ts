/** A file that cannot be brought back. The reason goes on after "the process ": `has an open io_uring`. */
export class FileRefusal extends Error {
  override readonly name = 'FileRefusal';
  readonly reason: string;
  /**
   * Address of the `struct file` that it is about, where that is known: an epoll is refused for what it
   * watches.
   */
  file: bigint | undefined;

  constructor(reason: string) {
    super(reason);
    this.reason = reason;
  }
}
