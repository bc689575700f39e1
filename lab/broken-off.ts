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

/**
 * Does some work. If this program is broken off by a signal meanwhile, it cleans up, and then ends by the
 * signal: what the work comes to once that has begun is nobody's to know any more.
 * @throws what the work throws
 */
export async function unlessBrokenOff<T>(work: () => Promise<T>, clean: () => Promise<void>): Promise<T> {
  const state = { isDone: false, isBrokenOff: false };
  whenBrokenOff(async () => {
    if (state.isDone) return;
    state.isBrokenOff = true;
    await clean();
  });
  const settled = await Promise.allSettled([work()]);
  state.isDone = true;
  // The signal ends this program.
  if (state.isBrokenOff) return new Promise(() => undefined);
  const [end] = settled;
  if (end.status === 'rejected') throw end.reason;
  return end.value;
}
