import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { suite, test } from 'node:test';

const root = join(import.meta.dirname, '../..');

/** What is of one architecture, and may know its registers and structures. */
const ARCHITECTURE = /^src\/(arch|linux\/arch|capture\/arch)\/|^src\/criu\/images\/x86\.ts$/;

/** Where else it is chosen: one place in each part. */
const CHOICES: Readonly<Record<string, RegExp>> = {
  'src/criu/images/core.ts': /^src\/criu\/images\/x86\.ts$/,
};

function imports(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  return Array.from(text.matchAll(/(?:from|import\() ?'(\.[^']+)'/g), ([, path = '']) =>
    join(dirname(file), path),
  );
}

suite('what is of one architecture', () => {
  const files = globSync('src/**/*.ts', { cwd: root });

  test('is asked through its interface by all other parts', () => {
    const direct = files
      .filter((file) => !ARCHITECTURE.test(file))
      .flatMap((file) => imports(file).map((target) => ({ file, target })))
      .filter(
        ({ target }) =>
          ARCHITECTURE.test(target) && !/^src\/(arch|linux\/arch|capture\/arch)\/index\.ts$/.test(target),
      )
      // A structure that another one contains is declared with the headers of the architecture.
      .filter(({ file, target }) => !(file.startsWith('src/linux/') && target.startsWith('src/linux/arch/')))
      .filter(({ file, target }) => CHOICES[file]?.test(target) !== true);
    assert.deepEqual(direct, []);
  });

  test('knows, where it is plain data, nothing but the interface', () => {
    const beyond = files
      .filter((file) => file.startsWith('src/arch/'))
      .flatMap((file) => imports(file).map((target) => ({ file, target })))
      .filter(({ target }) => !/^src\/(arch|system)\//.test(target));
    assert.deepEqual(beyond, []);
  });
});
