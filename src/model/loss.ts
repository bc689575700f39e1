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

/** Which kinds a process may lose, by its PID: somebody has said so. */
export type AllowedLosses = (pid: number) => ReadonlySet<LossKind>;

/** Nobody has said anything. */
export const noneAllowed: AllowedLosses = () => new Set();

/**
 * What is decided of a process:
 * - `whole`: all that its program relies on comes back; notes say what is other than before;
 * - `with-losses`: something that its program must expect to lose is lost, and the failure is delivered;
 * - `refused`: it does not come back.
 */
export type Fate = 'whole' | 'with-losses' | 'refused';
