import { execFileSync } from 'node:child_process';
import { constants, openSync, rmSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';

const SCRIPT = 'pre-resume.sh';
const ASKS = 'pre-resume.asks';
const GOES = 'pre-resume.goes';

/**
 * CRIU calls it at every stage; at two of them it waits for an answer: before CRIU makes anything, but has
 * found out what the kernel can do, and at the last one before the processes run on. Who waits is said,
 * because CRIU runs it through a shell or directly. CRIU goes on whatever the status is: without an answer,
 * as when who was asked has ended, the script stops itself, and CRIU waits until it is ended. It opens what
 * it reads the answer from before it asks: who opens a FIFO that nobody has open any more waits there.
 */
const text = `#!/bin/sh
case $CRTOOLS_SCRIPT_ACTION in
pre-restore | pre-resume) ;;
*) exit 0 ;;
esac
cd "\${0%/*}" && { echo "$CRTOOLS_SCRIPT_ACTION $$ $PPID" >${ASKS} && read -r _ <&3; } 3<${GOES} && exit 0
kill -STOP $$
`;

/** What is done while CRIU waits. Neither may throw; after anything but true CRIU goes on waiting. */
export interface CriuSteps {
  /** CRIU has made nothing yet. */
  begin(): boolean;
  /**
   * The restored processes exist and do not run yet.
   * @param waiting the script and what has called it
   */
  hold(waiting: readonly number[]): boolean;
}

/** Steps that are done while CRIU waits. */
export interface PreResume {
  /** For `criu restore`. */
  readonly options: readonly string[];
  /** To be called when `criu` has ended. Returns whether the last step was done. */
  finish(): boolean;
}

function makeFifo(path: string): number {
  rmSync(path, { force: true });
  execFileSync('mkfifo', ['-m', '600', '--', path]);
  // Open at both ends, so that neither opening nor reading ever waits for the other side.
  return openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
}

/**
 * Has CRIU wait for each step: an action script asks through one FIFO in the images' directory and reads the
 * answer from another. `finish` takes both away.
 *
 * @param seenAs how CRIU sees the directory
 * @returns an object whose `finish` says whether `hold` has returned true
 */
export function preparePreResume(directory: string, steps: CriuSteps, seenAs: string = directory): PreResume {
  const paths = [SCRIPT, ASKS, GOES].map((name) => join(directory, name));
  const [script = '', asks = '', goes = ''] = paths;
  rmSync(script, { force: true });
  writeFileSync(script, text, { mode: 0o700 });
  const asking = new Socket({ fd: makeFifo(asks), readable: true, writable: false });
  const answer = new Socket({ fd: makeFifo(goes), readable: false, writable: true });
  let done = false;
  asking.on('error', () => undefined);
  answer.on('error', () => undefined);
  asking.on('data', (data) => {
    const [action = '', ...waiting] = data.toString('latin1').trim().split(' ');
    const isLast = action === 'pre-resume';
    if (isLast) done ||= steps.hold(waiting.map(Number));
    if (isLast ? done : steps.begin()) answer.write('\n');
  });
  return {
    options: ['--action-script', join(seenAs, SCRIPT)],
    finish: () => {
      asking.destroy();
      answer.destroy();
      for (const path of paths) rmSync(path, { force: true });
      return done;
    },
  };
}
