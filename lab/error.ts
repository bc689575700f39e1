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

/** The command line asks for what no command of the lab takes: exit status 2, as everywhere. */
export class WrongUse extends LabError {
  constructor(message: string) {
    super(message, 2);
  }
}
