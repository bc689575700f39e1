import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');

test('schemas are imported as a namespace, of which a bundle has only what is used', () => {
  // The object `z` has every schema and the messages of fifty languages: half of the crash world's program.
  const whole = globSync('{src,sdk}/**/*.ts', { cwd: root }).filter((file) =>
    /import \{[^}]*\} from 'zod'/.test(readFileSync(join(root, file), 'utf8')),
  );
  assert.deepEqual(whole, []);
});
