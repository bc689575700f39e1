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
import { benchScale } from './scale.ts';
import { benchTasks } from './tasks.ts';
import { benchTraffic } from './traffic.ts';

interface Part {
  readonly name: string;
  readonly heading: string;
  /**
   * Measures and returns Markdown. `quick`: fewer rounds of smaller things.
   * @param keep is given what there is so far: of a run that is broken off, the page has that
   */
  run(quick: boolean, progress: Progress, keep: (soFar: string) => void): Promise<string>;
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
  { name: 'scale', heading: 'Processes with very many of one thing', run: benchScale },
  {
    name: 'recovery',
    heading: 'From panic to running',
    run: async (quick, progress) => recoverySection(await sharedRecovery(quick, progress)),
  },
  { name: 'campaign', heading: 'Panics of a busy machine', run: benchCampaign },
  { name: 'traffic', heading: 'Panics in the middle of traffic', run: benchTraffic },
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

function write(section: Section): void {
  writeDocument(
    [section],
    parts.map(({ heading }) => heading),
  );
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
      const sectionOf = (measured: string): Section => ({
        heading,
        body: `${measured}\n\n\`${command}\`: ${machine}.`,
      });
      const section = sectionOf(
        await run(quick, progress, (soFar) => {
          if (!quick) write(sectionOf(soFar));
        }),
      );
      console.log(`\n## ${heading}\n${section.body}\n`);
      if (!quick) write(section);
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
