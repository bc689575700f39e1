import type { Command } from 'commander';
import { parseRelease, releases } from '../../lab/release.ts';
import { runTests } from '../../lab/test-run.ts';

/** `otherworld test`: the project's own tests. */
export function registerTest(program: Command): void {
  program
    .command('test [filter]')
    .description('run the tests: first those that need no guest, then those in guests')
    .option('--unit', 'only tests that need no guest')
    .option('--guest', 'only tests in guests')
    .option('--release <name>', `guests of this release only: ${releases.join(' or ')}`)
    .option('--all', 'every guest test on every release; else most of them on the newest one only')
    .addHelpText('after', '\nFILTER: only test files whose path contains it.')
    .action(async (filter: string | undefined, options: TestCommandOptions) => {
      process.exitCode = await runTests({
        filter: filter ?? '',
        unit: options.guest !== true,
        extent: options.all === true ? 'all' : 'quick',
        guestReleases: options.unit ? [] : options.release ? [parseRelease(options.release)] : [...releases],
      });
    });
}

interface TestCommandOptions {
  unit?: boolean;
  guest?: boolean;
  all?: boolean;
  release?: string;
}
