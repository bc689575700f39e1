import type { Command } from 'commander';
import { makeFixture } from '../../lab/fixture/make.ts';
import { stderrProgress } from '../../lab/progress.ts';
import { parseRelease, releases } from '../../lab/release.ts';

/** `otherworld lab fixture`: the small dumps that unit tests read. */
export function registerLabFixture(lab: Command): void {
  lab
    .command('fixture')
    .description('make the dumps that unit tests read (test/fixtures/vmcore) anew, from real guests')
    .option('--release <name>', `of this release only: ${releases.join(' or ')}`)
    .action(async (options: { release?: string }) => {
      const chosen = options.release === undefined ? releases : [parseRelease(options.release)];
      for (const release of chosen) console.log(await makeFixture(release, stderrProgress()));
    });
}
