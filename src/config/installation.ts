import { findPackageJSON } from 'node:module';
import { dirname } from 'node:path';

/**
 * The directory of this installation, with package.json and node_modules: a checkout, or where a bundle was
 * installed.
 */
export const INSTALLATION = rootOf(import.meta.url);

function rootOf(module: string): string {
  const manifest = findPackageJSON('.', module);
  if (manifest === undefined) throw new Error(`there is no package.json above ${module}`);
  return dirname(manifest);
}
