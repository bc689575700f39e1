/** What something that was thrown says: an Error its message, anything else itself as text. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** What an Error says, with what its causes say. */
export function messageWithCauses(thrown: unknown): string {
  const message = messageOf(thrown);
  return thrown instanceof Error && thrown.cause !== undefined
    ? `${message}: ${messageWithCauses(thrown.cause)}`
    : message;
}

/**
 * `ENOENT`: the code of an error of Node.js or of a system call; undefined for anything else that was thrown.
 */
export function codeOf(thrown: unknown): string | undefined {
  const code = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined;
  return typeof code === 'string' ? code : undefined;
}
