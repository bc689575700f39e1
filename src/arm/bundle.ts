import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cached, fileStamp, treeStamp } from './cache.ts';
import { runProgram } from './command.ts';
import { INSTALLATION } from './runtime.ts';

/** CommonJS packages inside an ES module bundle ask for `require`. */
const BANNER = `import { createRequire as requireFrom } from 'node:module';
const require = requireFrom(import.meta.url);`;

/**
 * The crash world's program as one ES module; only koffi, which has a native part, stays outside. Built anew when a source file or a
 * library has changed.
 */
export async function buildBundle(): Promise<{ path: string; built: boolean }> {
  const { buildSync, version } = await import('esbuild');
  const source = join(INSTALLATION, 'src');
  const inputs = [
    version,
    BANNER,
    treeStamp(source),
    fileStamp(join(INSTALLATION, 'node_modules/.package-lock.json')),
  ];
  return cached('bundle', inputs, (path) => {
    buildSync({
      entryPoints: [join(source, 'crash-world/main.ts')],
      outfile: path,
      allowOverwrite: true,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: `node${process.versions.node.split('.')[0]}`,
      external: ['koffi'],
      legalComments: 'none',
      logLevel: 'error',
      banner: { js: BANNER },
    });
    runProgram(process.execPath, ['--check', '--input-type=module', '-'], { input: readFileSync(path) });
  });
}
