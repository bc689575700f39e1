import assert from 'node:assert/strict';
import {
  appendFileSync,
  cpSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { buildInstallation } from '../../lab/install.ts';
import { repositoryRoot } from '../../lab/node-tree.ts';

suite('the key of an installation', () => {
  let checkout: string;
  let key: string;

  before(async () => {
    checkout = mkdtempSync(join(tmpdir(), 'otherworld-checkout-'));
    for (const part of ['package.json', 'LICENSE', 'docs', 'sdk', 'src'])
      cpSync(join(repositoryRoot, part), join(checkout, part), { recursive: true });
    symlinkSync(join(repositoryRoot, 'node_modules'), join(checkout, 'node_modules'));
    ({ key } = await buildInstallation(checkout));
  });
  after(() => rmSync(checkout, { recursive: true }));

  test('is the same for the same sources, whenever they were written', async () => {
    utimesSync(join(checkout, 'sdk/c/otherworld.h'), 0, 0);
    utimesSync(join(checkout, 'src/cli/installed.ts'), 0, 0);
    assert.equal((await buildInstallation(checkout)).key, key);
  });

  const changes: Readonly<Record<string, string>> = {
    'program of the crash world': 'src/crash-world/main.ts',
    'script of the crash world': 'src/crash-world/init.sh',
  };
  for (const [what, file] of Object.entries(changes)) {
    test(`is another when a ${what} has changed`, async () => {
      const path = join(checkout, file);
      const before = readFileSync(path);
      const isProgram = file.endsWith('.ts');
      appendFileSync(path, isProgram ? 'globalThis.name = "changed";\n' : '# changed\n');
      const changed = (await buildInstallation(checkout)).key;
      writeFileSync(path, before);
      assert.notEqual(changed, key);
    });
  }
});
