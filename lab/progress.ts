import { beginStep } from '../src/report/steps.ts';

/**
 * Where long steps say what they are doing: one line each on standard error, with seconds since the start.
 */
export interface Progress {
  step(message: string): void;
}

/** Progress lines on standard error. */
export function stderrProgress(): Progress {
  const start = performance.now();
  return {
    step(message) {
      const seconds = ((performance.now() - start) / 1000).toFixed(1).padStart(6);
      process.stderr.write(`${seconds} s  ${message}\n`);
      beginStep(message);
    },
  };
}
