/** Ends with a clear message for everybody but root: what follows needs what only root can read and write. */
export function requireRoot(command: string): void {
  if (process.getuid?.() !== 0) throw new Error(`${command} needs root: sudo otherworld ${command}`);
}
