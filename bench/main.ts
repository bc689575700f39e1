import { Command } from 'commander';
import { type Progress, stderrProgress } from '../lab/progress.ts';
import { findQemu } from '../lab/qemu.ts';
import { benchApplications } from './applications.ts';
import { benchCampaign } from './campaign.ts';
import { describeMachine, type Section, writeDocument } from './document.ts';
import { removeGuests } from './guest.ts';
import { memorySection } from './memory.ts';
import { benchPages } from './pages.ts';
import { measureRecovery, type Recovery, recoverySection } from './recovery.ts';
import { benchRedis } from './redis.ts';
import { benchTasks } from './tasks.ts';

interface Part {
  readonly name: string;
  readonly heading: string;
  /** Measures and returns Markdown. `quick`: fewer rounds of smaller things. */
  run(quick: boolean, progress: Progress): Promise<string>;
}

let recovery: Promise<Recovery> | undefined;

/** Times and memory are from the same panics. */
function sharedRecovery(quick: boolean, progress: Progress): Promise<Recovery> {
  recovery ??= measureRecovery(quick, progress);
  return recovery;
}

const parts: readonly Part[] = [
  { name: 'tasks', heading: 'Listing every process with its memory maps', run: benchTasks },
  { name: 'pages', heading: 'Capturing pages', run: benchPages },
  {
    name: 'recovery',
    heading: 'From panic to running',
    run: async (quick, progress) => recoverySection(await sharedRecovery(quick, progress)),
  },
  { name: 'campaign', heading: 'Panics of a busy machine', run: benchCampaign },
  { name: 'applications', heading: 'Kept in memory or on a disk', run: benchApplications },
  { name: 'redis', heading: 'Redis on an armed machine', run: benchRedis },
  {
    name: 'memory',
    heading: "The crash world's memory",
    run: async (quick, progress) => memorySection(await sharedRecovery(quick, progress)),
  },
];

/** @throws Error for a name that is no part */
function chosenParts(names: readonly string[]): Part[] {
  for (const name of names) {
    if (parts.every((part) => part.name !== name)) {
      throw new Error(`there is no part "${name}": ${parts.map((part) => part.name).join(', ')}`);
    }
  }
  return parts.filter(({ name }) => names.length === 0 || names.includes(name));
}

/** One part that fails does not keep the others from being measured. */
async function runParts(chosen: readonly Part[], quick: boolean): Promise<number> {
  const progress = stderrProgress();
  const machine = `${describeMachine()}; guests by QEMU ${(await findQemu(progress)).version}`;
  let failures = 0;
  for (const { name, heading, run } of chosen) {
    progress.step(`${name}: ${heading}`);
    try {
      const command = `npm run bench -- ${name}`;
      const section: Section = {
        heading,
        body: `${await run(quick, progress)}\n\n\`${command}\`: ${machine}.`,
      };
      console.log(`\n## ${heading}\n${section.body}\n`);
      if (!quick)
        writeDocument(
          [section],
          parts.map((part) => part.heading),
        );
    } catch (error) {
      failures++;
      console.error(`bench: ${name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return failures === 0 ? 0 : 1;
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => removeGuests().finally(() => process.kill(process.pid, signal)));
}

await new Command('bench')
  .description('measures Otherworld against its peers and writes docs/benchmarks.md')
  .argument('[part...]', `${parts.map(({ name }) => name).join(', ')}; all if none is named`)
  .option('--quick', 'fewer rounds of smaller things; prints only')
  .action(async (names: string[], { quick = false }: { quick?: boolean }) => {
    try {
      process.exitCode = await runParts(chosenParts(names), quick);
    } catch (error) {
      console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
      process.exitCode = 2;
    }
  })
  .parseAsync();
