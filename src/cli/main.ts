import { installedCommands } from './commands.ts';
import { type Commands, runCommandLine } from './program.ts';

/** A checkout has besides: guests to try it in, the demo and the tests. */
const commands: Commands = {
  demo: async () => (await import('./demo.ts')).registerDemo,
  ...installedCommands,
  lab: async () => (await import('./lab.ts')).registerLab,
  test: async () => (await import('./test.ts')).registerTest,
};

process.exitCode = await runCommandLine(commands);
