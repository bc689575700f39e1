import { say } from './stages.ts';

/**
 * The program that the crash initramfs carries: `resurrect` before the system's init, `journal` before the journal starts, `settle` when the
 * system has booted.
 */
async function main(part: string | undefined): Promise<void> {
  if (part === 'resurrect') await (await import('./resurrect.ts')).resurrect();
  else if (part === 'journal') (await import('./journal-streams.ts')).giveStreams();
  else if (part === 'settle') await (await import('./settle.ts')).settle();
  else throw new Error(`unknown part ${part}: resurrect, journal or settle`);
}

try {
  await main(process.argv[2]);
} catch (error) {
  console.error(error);
  say(`${process.argv[2]} failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
