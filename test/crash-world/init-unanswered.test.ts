import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-init-'));
after(() => rmSync(directory, { recursive: true }));
const init = readFileSync(join(import.meta.dirname, '../../src/crash-world/init.sh'), 'utf8');
const kill = join(directory, 'cgroup.kill');
const handover = join(directory, 'handover.json');

/** Runs the part of init.sh that ends who holds connections. @returns whether it has */
function isEnded(problem: string): boolean {
  const [part = ''] = /^unanswered=.*?^fi$/ms.exec(init) ?? [];
  assert.match(part, /otherworld-unanswered\/cgroup\.kill/);
  writeFileSync(kill, '');
  const script = part.replace(/^unanswered=.*/, `unanswered=${kill}`);
  execFileSync('sh', ['-c', script], { env: { ...process.env, problem, run: directory } });
  return readFileSync(kill, 'utf8') === '1\n';
}

test('connections are answered before the system boots, unless the boot knows whose they are', () => {
  // The stage that writes it has failed: the program ends as ever.
  assert.equal(isEnded(''), true);
  writeFileSync(handover, '{}');
  assert.equal(isEnded(''), false);
  assert.equal(isEnded('the resurrection was killed'), true);
  rmSync(kill);
  execFileSync('sh', ['-n', join(import.meta.dirname, '../../src/crash-world/init.sh')]);
});
