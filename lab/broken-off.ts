/**
 * When this program is broken off by a signal, cleans up first, and then ends by the signal all the same.
 * What the cleaning cannot do is left as it is.
 */
export function whenBrokenOff(clean: () => Promise<void>): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      const end = (): boolean => process.kill(process.pid, signal);
      clean().then(end, end);
    });
  }
}
