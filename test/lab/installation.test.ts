import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { buildInstallation } from '../../lab/install.ts';
import { repositoryRoot } from '../../lab/node-tree.ts';

/**
 * A checkout with all that is installed, but little of each: two programs, of which one loads a part of
 * itself when it wants it, and both have something from a library.
 */
const FILES: Readonly<Record<string, string>> = {
  'package.json': '{"type":"module"}',
  LICENSE: 'a licence',
  'docs/index.md': 'documents',
  'sdk/c/otherworld.h': 'int otherworld;',
  'src/arm/initramfs/init': '#!/bin/sh',
  'src/crash-world/init.sh': '#!/bin/sh',
  'src/crash-world/give-up.sh': '#!/bin/sh',
  'src/crash-world/main.ts': "import { shared } from '../shared.ts';\nconsole.log(shared);\n",
  'src/cli/installed.ts':
    "import { shared } from '../shared.ts';\nconsole.log(shared, await import('./late.ts'));\n",
  'src/cli/late.ts': "import { shared } from '../shared.ts';\nexport const late: string = shared + 1;\n",
  'src/shared.ts': "import { Command } from 'commander';\nexport const shared = new Command().name();\n",
};

suite('the key of an installation', () => {
  let checkout: string;
  let key: string;

  before(async () => {
    checkout = mkdtempSync(join(tmpdir(), 'otherworld-checkout-'));
    for (const [file, content] of Object.entries(FILES)) {
      mkdirSync(join(checkout, dirname(file)), { recursive: true });
      writeFileSync(join(checkout, file), content);
    }
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
