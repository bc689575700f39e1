/**
 * Kinds of things that a program must expect to lose at any time, and that can be lost instead of the whole
 * process. A refusal that may be a loss names its kind (`FileRefusal`), and whoever captures such a thing
 * makes the model of what is delivered in its place.
 *
 * - `connections`: a TCP connection, which can be reset at any time.
 */
export type LossKind = 'connections';

/**
 * Something that does not come back as it was. The process gets the failure that its program has to expect.
 */
export interface Loss {
  readonly kind: LossKind;
  /** Which thing it was, in words that stay the same while it lasts: both ends of a connection. */
  readonly of: string;
  /** A sentence for the report: what it was, what the process sees of it now, and why. */
  readonly what: string;
}

/**
 * Kinds of what no program expects to lose. A process that has a crash procedure comes back without it, for
 * that procedure alone.
 *
 * - `descriptors`: an open file; whoever uses its number gets EBADF.
 * - `threads`: a thread other than the first, or a timer that notifies one.
 * - `memory`: an area of memory, which is gone as a whole.
 * - `execution`: where the first thread was, or what it was in.
 */
export type UnexpectedKind = 'descriptors' | 'threads' | 'memory' | 'execution';

/** Something of those kinds that does not come back. */
export interface UnexpectedLoss {
  readonly kind: UnexpectedKind;
  /** Which thing it was, in words that stay the same while it lasts: `fd 7`. */
  readonly of: string;
  /** A sentence for the report and for the procedure. */
  readonly what: string;
  readonly fd?: number;
  readonly tid?: number;
}

/** Which kinds a process may lose, by its PID: somebody has said so. */
export type AllowedLosses = (pid: number) => ReadonlySet<LossKind>;

/** Nobody has said anything. */
export const noneAllowed: AllowedLosses = () => new Set();

/**
 * What is decided of a process:
 * - `whole`: all that its program relies on comes back; notes say what is other than before;
 * - `with-losses`: something that its program must expect to lose is lost, and the failure is delivered;
 * - `for-its-procedure`: something that no program expects to lose is lost. It has a crash procedure, which
 *   runs; after that it executes another program or ends. It is never continued where it was;
 * - `refused`: it does not come back.
 */
export type Fate = 'whole' | 'with-losses' | 'for-its-procedure' | 'refused';
