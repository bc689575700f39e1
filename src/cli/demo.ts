import type { Command } from 'commander';
import { type DemoDisplay, runDemo } from '../../lab/demo/run.ts';
import { frame, table } from '../../lab/demo/show.ts';
import { stderrProgress } from '../../lab/progress.ts';
import { parseRelease } from '../../lab/release.ts';
import { wholeNumber } from './arguments.ts';

/** `otherworld demo`: real programs outlive a real panic, and are compared with what they were. */
export function registerDemo(program: Command): void {
  program
    .command('demo')
    .description('show real programs in a real guest outliving its kernel')
    .option('--release <name>', 'trixie (Debian 13) or bookworm (Debian 12)', 'trixie')
    .option('--cpus <n>', 'virtual CPUs of the guest', wholeNumber, 2)
    .option('--quick', 'start from a snapshot of a guest that is armed; the first time makes it')
    .option('--keep', 'leave the guest running: otherworld lab exec demo -- ...')
    .option('--json', 'print the table as JSON')
    .action(demo);
}

interface DemoCommandOptions {
  release: string;
  cpus: number;
  quick?: boolean;
  keep?: boolean;
  json?: boolean;
}

async function demo(options: DemoCommandOptions): Promise<void> {
  const start = performance.now();
  const display: DemoDisplay = {
    progress: stderrProgress(),
    show: (title, text) => {
      if (!options.json) console.log(`${frame(title, text)}\n`);
    },
  };
  const release = parseRelease(options.release);
  const rows = await runDemo(
    {
      ...{ guest: 'demo', release, cpus: options.cpus },
      ...{ quick: options.quick === true, keep: options.keep === true },
    },
    display,
  );
  const ok = rows.every((row) => row.ok);
  const seconds = Number(((performance.now() - start) / 1000).toFixed(1));
  if (options.json) console.log(JSON.stringify({ ok, release, seconds, rows }, undefined, 2));
  else {
    console.log(table(rows, process.stdout.isTTY === true));
    console.log(ok ? `All of it is true, after ${seconds} s.` : 'Not all of it is true.');
  }
  process.exitCode = ok ? 0 : 1;
}
