/** Something that did not come back, or a system call of which nobody knows whether it took effect. */
export interface Item {
  /** The file descriptor concerned, if there is one. */
  readonly fd: number | undefined;
  /** The thread concerned, if there is one. */
  readonly tid: number | undefined;
  readonly what: string;
}

/** A kernel's death that this process has outlived. */
export interface Incident {
  /** Names the incident's report: `otherworld report ID`. */
  readonly id: string;
  readonly panicTime: Date;
  /** Kernels outlived since the program registered, this one included. */
  readonly resurrections: number;
  readonly lost: readonly Item[];
  readonly inDoubt: readonly Item[];
  /** Items that found no room in the record. */
  readonly itemsOmitted: number;
}

export interface Options {
  /** The signal that the crash world queues. Default: SIGPWR. */
  readonly signal?: NodeJS.Signals;
  /**
   * After that time the crash world no longer waits for the callback. Default: as configured on the machine.
   */
  readonly timeLimitMilliseconds?: number;
}

/**
 * Has `callback` called when this process has outlived its kernel, as soon as its event loop runs. When the
 * callback has returned, or its promise is fulfilled, the crash world is told so. An error that it throws is
 * the program's own, as one in any event listener.
 *
 * @returns a function that takes the registration back
 * @throws NotRegisteredError if the platform or the library `koffi` is missing, or a registration exists
 * already
 */
export function onKernelCrash(
  callback: (incident: Incident) => void | Promise<void>,
  options?: Options,
): () => void;

export class NotRegisteredError extends Error {}
