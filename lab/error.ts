/** A lab operation that cannot be done; the message says what failed and what to do about it. */
export class LabError extends Error {
  override readonly name = 'LabError';
  /** Exit status of the command that ends with this error. */
  readonly exitStatus: number;

  constructor(message: string, exitStatus = 1, cause?: unknown) {
    super(message, { cause });
    this.exitStatus = exitStatus;
  }
}
