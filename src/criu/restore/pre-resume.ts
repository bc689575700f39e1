import { execFileSync } from 'node:child_process';
import { constants, openSync, rmSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';

const SCRIPT = 'pre-resume.sh';
const ASKS = 'pre-resume.asks';
const GOES = 'pre-resume.goes';

/**
 * CRIU calls it at every stage; at the last one before the processes run on it waits for an answer. Who waits
 * is said, because CRIU runs it through a shell or directly. CRIU goes on whatever the status is: without an
 * answer, as when who was asked has ended, the script stops itself, and CRIU waits until it is ended. It
 * opens what it reads the answer from before it asks: who opens a FIFO that nobody has open any more waits
 * there.
 */
const text = `#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = pre-resume ] || exit 0
cd "\${0%/*}" && { echo "$$ $PPID" >${ASKS} && read -r _ <&3; } 3<${GOES} && exit 0
kill -STOP $$
`;

/** A step that is done while the restored processes exist but do not run yet. */
export interface PreResume {
  /** For `criu restore`. */
  readonly options: readonly string[];
  /** To be called when `criu` has ended. Returns whether the step was done. */
  finish(): boolean;
}

function makeFifo(path: string): number {
  rmSync(path, { force: true });
  execFileSync('mkfifo', ['-m', '600', '--', path]);
  // Open at both ends, so that neither opening nor reading ever waits for the other side.
  return openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
}

/**
 * Has CRIU wait for `step` before it lets the processes go: an action script asks through one FIFO in the
 * images' directory and reads the answer from another. `finish` takes both away.
 *
 * @param step gets the processes that wait: the script and what has called it. Must not throw
 * @param seenAs how CRIU sees the directory
 * @returns an object whose `finish` says whether `step` has returned true; after anything else CRIU goes on
 * waiting
 */
export function preparePreResume(
  directory: string,
  step: (waiting: readonly number[]) => boolean,
  seenAs: string = directory,
): PreResume {
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
    done ||= step((data.toString('latin1').match(/\d+/g) ?? []).map(Number));
    if (done) answer.write('\n');
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
