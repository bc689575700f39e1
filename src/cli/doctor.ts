import type { Command } from 'commander';
import { tryBoot } from '../arm/arm.ts';
import type { DeepQemu } from '../arm/deep.ts';
import { examine } from '../arm/doctor.ts';
import { ArmError } from '../arm/errors.ts';
import type { Finding } from '../arm/finding.ts';
import { ConfigError, loadConfig } from '../config/config.ts';
import { styleFor } from '../report/print.ts';
import { beginStep } from '../report/steps.ts';
import { requireRoot } from './root.ts';

function print(findings: readonly Finding[]): string {
  const style = styleFor(process.stdout.isTTY);
  const width = Math.max(...findings.map(({ what }) => what.length));
  const lines = findings.flatMap(({ what, state, found, todo }) => {
    const colour = { good: style.good, advice: style.strong, missing: style.bad }[state];
    const line = `${colour(state.padEnd(7))}  ${what.padEnd(width)}  ${found}`;
    return todo === undefined ? [line] : [line, `${' '.repeat(width + 11)}${todo}`];
  });
  const missing = findings.filter(({ state }) => state === 'missing').length;
  return [
    ...lines,
    missing === 0 ? 'This machine can be armed.' : `${missing} to mend before this machine can be armed.`,
  ].join('\n');
}

/** Only who asks for a boot loads what knows of the lab. */
async function labsQemu(): Promise<DeepQemu | undefined> {
  return (await import('../../lab/qemu.ts')).findUnpackedQemu();
}

async function booted(): Promise<Finding> {
  const what = 'crash world in QEMU';
  try {
    const sayStep = (step: string): void => {
      console.error(`otherworld: ${step}`);
      beginStep(step);
    };
    const found = await tryBoot(loadConfig(), sayStep, labsQemu);
    return { what, state: 'good', found };
  } catch (error) {
    if (!(error instanceof ArmError || error instanceof ConfigError)) throw error;
    return { what, state: 'missing', found: error.message, todo: 'see docs/arming.md, "What arm does"' };
  }
}

/** `otherworld doctor`: exit status 1 if something is missing. */
export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .description('check what this machine needs to be armed, and say what to change')
    .option('--deep', 'also build what would be loaded, and boot it in QEMU up to its program')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean; deep?: boolean }) => {
      requireRoot('doctor');
      beginStep('looking at this machine');
      const findings = [...examine(), ...(options.deep ? [await booted()] : [])];
      console.log(options.json ? JSON.stringify(findings, undefined, 2) : print(findings));
      process.exitCode = findings.some(({ state }) => state === 'missing') ? 1 : 0;
    });
}
