import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { checkImages } from '../../lab/image.ts';

suite('images of guests', () => {
  const images = mkdtempSync(join(tmpdir(), 'otherworld-images-'));
  after(() => rmSync(images, { recursive: true }));

  test('are built by root alone, and others are told at once', () => {
    checkImages(['trixie', 'bookworm'], '', true, images);
    const refused = /^LabError: root is needed: there is no image of Debian trixie yet.*sudo; --unit/;
    assert.throws(() => checkImages(['trixie'], '; --unit', false, images), refused);
    assert.throws(() => checkImages(['trixie'], '; --unit', false, join(images, 'none')), refused);
  });

  test('that are there do without root, and tests that boot none', () => {
    mkdirSync(join(images, 'trixie-0123'));
    checkImages(['trixie'], '', false, images);
    checkImages([], '', false, images);
    assert.throws(() => checkImages(['trixie', 'bookworm'], '', false, images), /Debian bookworm/);
  });
});

/** Without root, and without a cache. */
const NOBODY = 65534;
const asNobody = { uid: NOBODY, gid: NOBODY };
const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');

const readable = spawnSync(process.execPath, ['--check', MAIN], process.getuid?.() === 0 ? asNobody : {});
/** Why it cannot be called as somebody else; false if it can. */
const cannot =
  process.getuid?.() === 0
    ? readable.status !== 0 && 'others cannot read this checkout'
    : 'only root can call it as somebody else';

for (const args of [['demo'], ['test'], ['lab', 'up', 'a']])
  test(`${args.join(' ')} says first that it needs root`, { skip: cannot }, async () => {
    const env = { ...process.env, XDG_CACHE_HOME: '/nonexistent', HOME: '/nonexistent' };
    const child = spawn(process.execPath, [MAIN, ...args], {
      ...{ env, ...asNobody },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (data) => {
        said += String(data);
      });
    const [status] = await once(child, 'close');
    assert.match(said, /^otherworld: root is needed: /);
    assert.equal(status, 1);
  });
