import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { installationProblem } from '../../src/arm/own-installation.ts';

const isRoot = process.getuid?.() === 0;

suite('an installation that root runs at every boot', () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-installation-'));
  after(() => rmSync(directory, { recursive: true }));
  let number = 0;
  const install = (): { root: string; main: string } => {
    const root = join(directory, `checkout-${number++}`);
    const main = join(root, 'src/main.ts');
    for (const part of ['.git', 'src', 'node_modules/x']) mkdirSync(join(root, part), { recursive: true });
    writeFileSync(main, '');
    writeFileSync(join(root, 'node_modules/x/index.js'), '');
    return { root, main };
  };
  const problem = (root: string, main: string): string => installationProblem(root, [main]) ?? '';

  test('is good if all of it is root’s', () => {
    const { root, main } = install();
    symlinkSync('../src/main.ts', join(root, 'node_modules/link'));
    assert.equal(installationProblem(root, [main]), undefined);
  });

  test('is not good if any file or directory of it can be written by others', () => {
    const { root, main } = install();
    chmodSync(join(root, 'node_modules/x/index.js'), 0o664);
    assert.match(problem(root, main), /node_modules\/x\/index\.js can be written by others \(mode 664\)/);
    chmodSync(join(root, 'node_modules/x/index.js'), 0o644);
    chmodSync(join(root, 'node_modules'), 0o777);
    assert.match(problem(root, main), /\/node_modules can be written by others/);
  });

  test('is not good if what it starts is elsewhere, where others can write', () => {
    const { root } = install();
    const elsewhere = install();
    chmodSync(elsewhere.root, 0o777);
    assert.match(problem(root, elsewhere.main), /checkout-\d+ can be written by others/);
    symlinkSync(elsewhere.main, join(root, 'src/linked.ts'));
    assert.match(problem(root, join(root, 'src/main.ts')), /checkout-\d+ can be written by others/);
  });

  test('is not good if a user owns a part of it, or where it lies', { skip: !isRoot }, () => {
    const { root, main } = install();
    chownSync(join(root, '.git'), 1000, 1000);
    assert.match(problem(root, main), /\.git belongs to user 1000/);
    chownSync(join(root, '.git'), 0, 0);
    writeFileSync(join(root, '.git/config'), '');
    chownSync(join(root, '.git/config'), 1000, 1000);
    assert.equal(problem(root, main), '', 'nothing below it is run');
    chownSync(root, 1000, 1000);
    assert.match(problem(root, main), /checkout-\d+ belongs to user 1000/);
  });
});
