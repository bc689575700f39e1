import type { Command } from 'commander';
import { registerLabFixture } from './lab-fixture.ts';
import { registerLabGuests } from './lab-guests.ts';
import { registerLabPanic } from './lab-panic.ts';
import { registerLabRun } from './lab-run.ts';
import { registerLabUp } from './lab-up.ts';

const AFTER = `
Exit status: 0 done, 1 it failed, or there is no such guest, 2 wrong command line, 141 nobody read the output to its
end. 'lab exec' ends with the status of its command, 124 if the time was up, 125 if the lab could not run it.

Example: see what a panic does to a program.
  otherworld lab up play --install redis-server,redis-tools
  otherworld lab exec play -- sh -c 'systemctl stop redis-server; redis-server --save "" --daemonize yes >/dev/null 2>&1'
  otherworld lab exec play -- redis-cli set key value
  otherworld lab exec play -- otherworld protect --command redis-server
  otherworld lab panic play
  otherworld lab exec play -- redis-cli get key
  otherworld lab down play`;

/** `otherworld lab`: real Debian guests under QEMU. */
export function registerLab(program: Command): void {
  const lab = program
    .command('lab')
    .description('real Debian guests under QEMU: boot them, use them, kill their kernels')
    .addHelpText('after', AFTER);
  registerLabUp(lab);
  registerLabRun(lab);
  registerLabPanic(lab);
  registerLabGuests(lab);
  registerLabFixture(lab);
}
