import { installedCommands } from './commands.ts';
import { runCommandLine } from './program.ts';

// The entry of an installed Otherworld: of everything that this reaches, a bundle is made.
process.exitCode = await runCommandLine(installedCommands);
