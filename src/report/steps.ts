/** A step that a command is at. */
interface Step {
  readonly what: string;
  readonly began: number;
}

let began: number | undefined;
let current: Step | undefined;

function say(what: string, since: number): void {
  const seconds = ((performance.now() - since) / 1000).toFixed(2).padStart(8);
  process.stderr.write(`otherworld: ${seconds} s  ${what}\n`);
}

function endCurrent(): void {
  if (current !== undefined) say(current.what, current.began);
  current = undefined;
}

/**
 * From now on each step of the command is said on standard error when it has ended, with the time that it
 * took: `--verbose`.
 */
export function sayEachStep(): void {
  began = performance.now();
}

/** A step begins, and the one before it has ended. Nothing is said unless that was asked for. */
export function beginStep(what: string): void {
  if (began === undefined) return;
  endCurrent();
  current = { what, began: performance.now() };
}

/** The command has ended, and its last step with it. */
export function endSteps(): void {
  if (began === undefined) return;
  endCurrent();
  say('in all', began);
  began = undefined;
}
