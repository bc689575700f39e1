/** State on the disk cannot be relied on, or is in use; the message says what, where and what to do. */
export class StateError extends Error {
  override readonly name = 'StateError';
}
