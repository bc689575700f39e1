/** A file that cannot be brought back. The reason goes on after "the process ": `has an open io_uring`. */
export class FileRefusal extends Error {
  override readonly name = 'FileRefusal';
  readonly reason: string;

  constructor(reason: string) {
    super(reason);
    this.reason = reason;
  }
}
