/** Why nothing can be written to a file; the message goes on after its path. */
export class WriteBackRefusal extends Error {
  override readonly name = 'WriteBackRefusal';
}
