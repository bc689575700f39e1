import type { Command } from 'commander';
import { bootedCrashWorld } from '../../lab/console-log.ts';
import { LabError } from '../../lab/error.ts';
import { faults, parseFault } from '../../lab/fault.ts';
import { panicGuest, readReport } from '../../lab/panic.ts';
import { stderrProgress } from '../../lab/progress.ts';
import { dumpGuest } from '../../lab/vmcore.ts';
import { printReport, styleFor } from '../report/print.ts';
import { wholeNumber } from './arguments.ts';

interface PanicCommandOptions {
  by: string;
  cpu?: number;
  wait: number;
  unarmed?: boolean;
  json?: boolean;
}

/** `otherworld lab panic` and `lab vmcore`: dead kernels. */
export function registerLabPanic(lab: Command): void {
  lab
    .command('panic <name>')
    .description("kill a guest's kernel, wait for the crash world's report and print it")
    .option('--by <fault>', `how: ${faults.join(', ')}`, 'sysrq')
    .option('--cpu <number>', 'the CPU to kill the kernel on; without it, any', wholeNumber)
    .option('--wait <seconds>', 'longest time until the report', wholeNumber, 180)
    .option('--unarmed', 'panic even if no crash kernel is loaded; wait for nothing')
    .option('--json', 'print the report as JSON')
    .action(panic);
  lab
    .command('vmcore <name>')
    .description("write a guest's memory, living or dead, as an ELF vmcore with VMCOREINFO")
    .requiredOption('-o, --output <file>', 'the file to write')
    .action(async (name: string, options: { output: string }) => {
      refuseCrashWorld(name);
      const bytes = await dumpGuest(name, options.output);
      console.log(`${options.output}: ${(bytes / 2 ** 20).toFixed(0)} MiB`);
    });
}

/**
 * @throws LabError if the dead kernel's memory is in use again, though the dump would look like it:
 * VMCOREINFO is the dead kernel's
 */
function refuseCrashWorld(name: string): void {
  if (!bootedCrashWorld(name)) return;
  throw new LabError(
    `guest ${name} is in its crash world, which takes the dead kernel's memory back: a dump would be of neither kernel. ` +
      "'lab panic --unarmed' leaves a dead kernel that can be dumped",
  );
}

async function panic(name: string, options: PanicCommandOptions): Promise<void> {
  const progress = stderrProgress();
  const incident = await panicGuest(
    name,
    {
      fault: parseFault(options.by),
      cpu: options.cpu,
      waitSeconds: options.wait,
      unarmed: options.unarmed === true,
    },
    progress,
  );
  if (incident === undefined) return;
  progress.step('reading its report');
  const report = await readReport(name, incident);
  console.log(
    options.json ? JSON.stringify(report, undefined, 2) : printReport(report, styleFor(process.stdout.isTTY)),
  );
}
