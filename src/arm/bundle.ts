import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BuildOptions } from 'esbuild';
import { INSTALLATION } from '../config/installation.ts';
import { cached, fileStamp, treeStamp } from './cache.ts';
import { runProgram } from './command.ts';

/** CommonJS packages inside an ES module bundle ask for `require`. */
const BANNER = `import { createRequire as requireFrom } from 'node:module';
const require = requireFrom(import.meta.url);`;

/** The sources of a checkout. */
const SOURCE = join(INSTALLATION, 'src');

/**
 * How every bundle is made: ES modules for this Node.js; only koffi, which has a native part, stays outside.
 */
export const bundleOptions = {
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: `node${process.versions.node.split('.')[0]}`,
  external: ['koffi'],
  legalComments: 'none',
  logLevel: 'error',
  banner: { js: BANNER },
} as const satisfies BuildOptions;

/** The crash world's program among the files of an installation that was made as a bundle. */
export const INSTALLED_BUNDLE = join(INSTALLATION, 'lib/crash-world.mjs');

/**
 * The crash world's program as one ES module. An installation has it; a checkout builds it anew when a source
 * file or a library has changed.
 */
export async function buildBundle(): Promise<{ path: string; built: boolean }> {
  if (existsSync(INSTALLED_BUNDLE)) return { path: INSTALLED_BUNDLE, built: false };
  const { buildSync, version } = await import('esbuild');
  const inputs = [
    version,
    bundleOptions,
    treeStamp(SOURCE),
    fileStamp(join(INSTALLATION, 'node_modules/.package-lock.json')),
  ];
  return cached('bundle', inputs, (path) => {
    const entry = join(SOURCE, 'crash-world/main.ts');
    buildSync({ ...bundleOptions, entryPoints: [entry], outfile: path, allowOverwrite: true });
    runProgram(process.execPath, ['--check', '--input-type=module', '-'], { input: readFileSync(path) });
  });
}
