/** A kernel cannot be loaded; the message says what is wrong, where, and what to do. */
export class KexecError extends Error {
  override readonly name = 'KexecError';
}
