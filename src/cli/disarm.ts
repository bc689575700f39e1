import type { Command } from 'commander';
import { disarm } from '../arm/arm.ts';
import { removeUnits } from '../arm/units.ts';
import { beginStep } from '../report/steps.ts';
import { requireRoot } from './root.ts';

/** `otherworld disarm` */
export function registerDisarm(program: Command): void {
  program
    .command('disarm')
    .description('unload the crash kernel and put the panic settings back')
    .option('--uninstall', 'also stop arming at boot')
    .action((options: { uninstall?: boolean }) => {
      requireRoot('disarm');
      if (options.uninstall) beginStep('removing the units');
      if (options.uninstall && removeUnits()) console.log('no longer armed at boot');
      beginStep('unloading the crash kernel, putting the panic settings back');
      console.log(disarm() ? 'disarmed' : 'was not armed');
    });
}
