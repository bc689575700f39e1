import { messageOf } from '../system/thrown.ts';
import { NumberWanted, STATUS_AGAIN } from './processes/pids.ts';
import { say } from './stages/stage-runner.ts';

/**
 * The program that the crash initramfs carries: `resurrect` before the system's init, `journal` before the
 * journal starts, `sandboxes` while the system boots, `settle` when the system has booted; `give-up REASON`
 * if nothing was brought back, `self-test` before it is loaded.
 */
async function main(part: string | undefined): Promise<void> {
  if (part === 'resurrect') await (await import('./resurrect.ts')).resurrect();
  else if (part === 'journal') (await import('./systemd/journal-streams.ts')).giveStreams();
  else if (part === 'sandboxes') await (await import('./sandbox/sandboxes.ts')).restoreSandboxes();
  else if (part === 'settle') await (await import('./settle.ts')).settle();
  else if (part === 'give-up')
    (await import('./give-up.ts')).giveUp(process.argv[3] ?? 'no reason was given');
  else if (part === 'self-test') (await import('./self-test.ts')).selfTest();
  else throw new Error(`unknown part ${part}: resurrect, journal, sandboxes, settle, give-up or self-test`);
}

try {
  await main(process.argv[2]);
} catch (error) {
  if (error instanceof NumberWanted) {
    say(error.message);
    process.exit(STATUS_AGAIN);
  }
  // Last, on one line: init.sh takes it for the reason.
  console.error(error);
  console.error(messageOf(error).split('\n')[0]);
  say(`${process.argv[2]} failed: ${messageOf(error)}`);
  process.exitCode = 1;
}
