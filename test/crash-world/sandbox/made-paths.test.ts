import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { madePaths, openWay } from '../../../src/crash-world/sandbox/made-paths.ts';
import { pathFileOf } from '../live-group.ts';

test('CRIU makes sockets and deleted files by their paths, and nothing else', () => {
  const socket = (name: string, over: object = {}) => ({
    ...{ type: 'unix' as const, name: Buffer.from(name), nameDirectory: undefined },
    ...{ file: { mode: 0o140666, uid: 0, gid: 0 }, ownMake: undefined },
    ...over,
  });
  const open = pathFileOf(1, '/bin/sh');
  const files = [
    open,
    { ...open, path: '/tmp/gone', ghostId: 3 },
    { ...open, path: '/tmp/handed-in', ghostId: 4, isOwnMake: true as const },
    socket('/run/web/socket'),
    socket('here', { nameDirectory: '/srv/web' }),
    socket('\0abstract', { file: undefined }),
    socket('/run/user/late', {
      ownMake: { path: '/run/user/late', identity: open.identity, directory: open.identity },
    }),
  ];
  assert.deepEqual(madePaths({ files }), ['/tmp/gone', '/run/web/socket', '/srv/web/here']);
});

const USER = 12345;
const isRoot = process.geteuid?.() === 0;

suite('the way to what CRIU makes', { skip: isRoot ? false : 'needs root' }, () => {
  /** The `/` of a sandbox: of root alone, as that is. */
  let root = '';
  const at = (path: string): string => join(root, path);
  const make = (path: string, uid: number, mode: number): void => {
    mkdirSync(at(path));
    chownSync(at(path), uid, uid);
    chmodSync(at(path), mode);
  };
  beforeEach(() => {
    root = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-made-paths-')));
    chmodSync(root, 0o755);
    make('run', 0, 0o755);
  });
  afterEach(() => rmSync(root, { recursive: true }));

  test("is nobody else's where all directories are root's alone", () => {
    make('run/web', 0, 0o700);
    assert.equal(openWay('/run/web/socket', root), undefined);
    assert.equal(openWay('/socket', root), undefined);
    // Nobody else can make what is not there.
    assert.equal(openWay('/run/web/not/there', root), undefined);
  });

  test('is refused where others can write, however high above', () => {
    const cannot = (path: string, where: string): string =>
      `${path} cannot be made: others than root can write to ${where}`;
    make('run/user', USER, 0o755);
    make('run/user/roots', 0, 0o755);
    make('run/group', 0, 0o775);
    make('tmp', 0, 0o1777);
    assert.equal(openWay('/run/user/x', root), cannot('/run/user/x', '/run/user'));
    assert.equal(openWay('/run/user/roots/x', root), cannot('/run/user/roots/x', '/run/user'));
    assert.equal(openWay('/run/group/x', root), cannot('/run/group/x', '/run/group'));
    assert.equal(openWay('/tmp/x', root), cannot('/tmp/x', '/tmp'));
    chmodSync(root, 0o775);
    assert.equal(openWay('/run/x', root), cannot('/run/x', '/'));
  });

  test('is refused where there is a link, whoever has made it', () => {
    symlinkSync('/run', at('var'));
    assert.match(
      openWay('/var/x', root) ?? '',
      /^\/var\/x cannot be made: \/var is no directory, but a link/,
    );
  });
});
