import type { Command } from 'commander';
import { examine, type Finding } from '../arm/doctor.ts';
import { styleFor } from '../report/print.ts';
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

/** `otherworld doctor`: exit status 1 if something is missing. */
export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .description('what this machine needs to be armed, and what to change')
    .option('--json', 'as JSON')
    .action((options: { json?: boolean }) => {
      requireRoot('doctor');
      const findings = examine();
      console.log(options.json ? JSON.stringify(findings, undefined, 2) : print(findings));
      process.exitCode = findings.some(({ state }) => state === 'missing') ? 1 : 0;
    });
}
