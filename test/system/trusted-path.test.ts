import assert from 'node:assert/strict';
import { chmodSync, chownSync, lchownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { pathProblem } from '../../src/system/trusted-path.ts';

const isRoot = process.getuid?.() === 0;
const NOBODY = 65534;

suite('a path that root relies on', () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-path-'));
  after(() => rmSync(directory, { recursive: true }));
  const make = (...parts: string[]): string => {
    const path = join(directory, ...parts);
    mkdirSync(path, { recursive: true });
    return path;
  };

  test("is good if every part of it is root's, below a sticky directory too", () => {
    assert.equal(pathProblem(make('good', 'deep')), undefined);
    assert.equal(pathProblem(`${make('good', 'deep')}/../deep/`), undefined);
    assert.equal(pathProblem(make('sticky')), undefined);
    chmodSync(make('sticky'), 0o1777);
    assert.equal(pathProblem(make('sticky', 'own')), undefined);
    assert.match(pathProblem(make('sticky')) ?? '', /sticky can be written by others \(mode 1777\)/);
    assert.equal(pathProblem(join(directory, 'sticky/later'), 'allowed'), undefined);
    assert.equal(pathProblem(join(directory, 'sticky'), 'allowed'), undefined);
  });

  test('is not good if a directory on the way can be written by others', () => {
    const path = make('open', 'closed');
    chmodSync(join(directory, 'open'), 0o775);
    assert.match(pathProblem(path) ?? '', /\/open can be written by others \(mode 775\)/);
    assert.match(pathProblem(join(path, 'later'), 'allowed') ?? '', /\/open can be written by others/);
  });

  test('is not good if it is not there', () => {
    assert.match(pathProblem(join(directory, 'none')) ?? '', /none is not there$/);
  });

  test('is not good if a directory or a link on the way is of another user', { skip: !isRoot }, () => {
    const path = make('theirs', 'below');
    chownSync(join(directory, 'theirs'), NOBODY, NOBODY);
    assert.match(pathProblem(path) ?? '', /\/theirs belongs to user 65534$/);
    const good = make('target');
    symlinkSync(good, join(directory, 'link'));
    assert.equal(pathProblem(join(directory, 'link')), undefined);
    lchownSync(join(directory, 'link'), NOBODY, NOBODY);
    assert.match(pathProblem(join(directory, 'link')) ?? '', /\/link belongs to user 65534$/);
  });

  test('is looked at where its links lead', () => {
    chmodSync(make('elsewhere'), 0o777);
    symlinkSync('elsewhere', join(directory, 'relative'));
    assert.match(pathProblem(join(directory, 'relative')) ?? '', /\/elsewhere can be written by others/);
    symlinkSync('loop', join(directory, 'loop'));
    assert.match(pathProblem(join(directory, 'loop')) ?? '', /too many symbolic links/);
  });
});
