import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { ClosedDirectories, openLeftClosed } from '../../src/crash-world/closed-directories.ts';
import { goDown, isRootsAlone, ledElsewhere, madePaths } from '../../src/crash-world/made-paths.ts';
import { pathFileOf } from './live-group.ts';

test('CRIU makes sockets and deleted files by their paths, and nothing else', () => {
  const socket = (name: string, over: object = {}) => ({
    ...{ type: 'unix' as const, name: Buffer.from(name), nameDirectory: undefined },
    ...{ file: { mode: 0o140666, uid: 0, gid: 0 } },
    ...over,
  });
  const open = pathFileOf(1, '/bin/sh');
  const files = [
    open,
    { ...open, path: '/tmp/gone', ghostId: 3 },
    socket('/run/web/socket'),
    socket('here', { nameDirectory: '/srv/web' }),
    socket('\0abstract', { file: undefined }),
  ];
  assert.deepEqual(madePaths({ files }), ['/tmp/gone', '/run/web/socket', '/srv/web/here']);
});

const USER = 12345;
const OTHER = 12346;
const isRoot = process.geteuid?.() === 0;

suite('the directories in which CRIU makes files', { skip: isRoot ? false : 'needs root' }, () => {
  /** The `/` of a sandbox: of root alone, as that is. */
  let root = '';
  let closed: ClosedDirectories;
  const at = (path: string): string => join(root, path);
  const make = (path: string, uid: number, mode: number): void => {
    mkdirSync(at(path));
    chownSync(at(path), uid, uid);
    chmodSync(at(path), mode);
  };
  const look = (path: string): string => {
    const { uid, gid, mode } = statSync(at(path));
    return `${uid} ${gid} ${(mode & 0o7777).toString(8)}`;
  };

  beforeEach(() => {
    root = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-closed-')));
    chmodSync(root, 0o755);
    make('run', 0, 0o755);
    closed = new ClosedDirectories(root, { uids: [USER], own: new Set(['/tmp']) }, at('record'));
  });
  afterEach(() => {
    closed.open();
    rmSync(root, { recursive: true });
  });

  test("are root's alone until the files are made, and then as they were", () => {
    make('run/web', USER, 0o2775);
    make('run/web/below', USER, 0o700);
    make('tmp', 0, 0o1777);
    assert.equal(closed.close('/run/web/below/socket'), undefined);
    assert.equal(closed.close('/run/web/another'), undefined);
    assert.equal(closed.close('/tmp/deleted'), undefined);
    assert.deepEqual(['run', 'run/web', 'run/web/below', 'tmp'].map(look), [
      '0 0 755',
      `0 ${USER} 2755`,
      `0 ${USER} 700`,
      '0 0 1755',
    ]);
    assert.deepEqual(closed.open(), []);
    assert.deepEqual(['run/web', 'run/web/below', 'tmp'].map(look), [
      `${USER} ${USER} 2775`,
      `${USER} ${USER} 700`,
      '0 0 1777',
    ]);
    assert.ok(!existsSync(at('record')));
  });

  test('that all can write to, or that belong to somebody else, are not closed, and nothing is made there', () => {
    make('shared', 0, 0o1777);
    make('home', OTHER, 0o755);
    assert.match(closed.close('/shared/file') ?? '', /others can write to \/shared meanwhile$/);
    assert.match(closed.close('/home/file') ?? '', new RegExp(`user ${OTHER} can write to /home meanwhile$`));
    assert.deepEqual(['shared', 'home'].map(look), ['0 0 1777', `${OTHER} ${OTHER} 755`]);
  });

  test('have one of root beside them for deleted files, where all can write', () => {
    make('tmp', 0, 0o1777);
    const open = new ClosedDirectories(root, { uids: [], own: new Set() }, at('record'));
    const hidden = `/tmp/.otherworld-${'0f'.repeat(16)}`;
    assert.equal(open.close(`${hidden}/one`), undefined);
    assert.equal(open.close(`${hidden}/two`), undefined);
    assert.deepEqual([look('tmp'), look(hidden)], ['0 0 1777', '0 0 700']);
    assert.deepEqual(open.open(), []);
    assert.ok(!existsSync(at(hidden)));
    // Somebody was there first.
    make(hidden.slice(1), USER, 0o700);
    assert.match(open.close(`${hidden}/one`) ?? '', /EEXIST/);
    // Another one's is his to take away, and root's is not.
    make('tmp/user', USER, 0o700);
    make('tmp/root', 0, 0o755);
    assert.match(open.close('/tmp/user/x') ?? '', /others can write to \/tmp meanwhile$/);
    assert.equal(open.close('/tmp/root/x'), undefined);
  });

  test('are not reached by a link that their user can have made', () => {
    make('run/web', USER, 0o755);
    make('etc', 0, 0o755);
    symlinkSync('/etc', at('run/web/below'));
    const behind = /is behind the symbolic link \/run\/web\/below,/;
    assert.match(closed.close('/run/web/below/x') ?? '', behind);
    // Nor when it is closed already.
    assert.equal(closed.close('/run/web/x'), undefined);
    assert.match(closed.close('/run/web/below/x') ?? '', behind);
    // Root's own is followed.
    symlinkSync('../run', at('etc/link'));
    symlinkSync('/run', at('var'));
    assert.equal(closed.close('/etc/link/web/x'), undefined);
    assert.equal(closed.close('/var/web/x'), undefined);
    assert.equal(look('run/web'), `0 ${USER} 755`);
  });

  test('are closed from the top, whatever is not there yet', () => {
    make('run/web', USER, 0o755);
    assert.equal(closed.close('/run/web/not/there'), undefined);
    assert.equal(look('run/web'), `0 ${USER} 755`);
  });

  test('are put back by whoever comes next, if the program was ended', () => {
    make('run/web', USER, 0o755);
    make('run/web/below', USER, 0o770);
    const paths = ['run/web', 'run/web/below'];
    const [before, closedOnes] = [paths.map(look), [`0 ${USER} 755`, `0 ${USER} 750`]];
    const ended = new ClosedDirectories('/', { uids: [USER], own: new Set() }, at('left'));
    assert.equal(ended.close(at('run/web/below/x')), undefined);
    assert.deepEqual(paths.map(look), closedOnes);
    assert.deepEqual(openLeftClosed(at('left')), []);
    assert.deepEqual(paths.map(look), before);
    assert.deepEqual(openLeftClosed(at('left')), []);
    // By the paths of the sandbox, which are none outside; what nobody outside has goes with the sandbox.
    const own = new Set(['/run/web/below']);
    const inside = new ClosedDirectories(root, { uids: [USER], own }, at('left'));
    assert.equal(inside.close('/run/web/below/x'), undefined);
    const [left, ...more] = openLeftClosed(at('left'));
    assert.match(left ?? '', /^\/run\/web stays root's alone, and was user/);
    assert.deepEqual(more, []);
  });

  test('are looked at where the path leads, not where its name was led since', () => {
    make('run/web', USER, 0o755);
    make('run/other', 0, 0o755);
    const passed: string[] = [];
    goDown(
      '/run/web/x',
      ({ path, stats }) => {
        passed.push(`${path} ${isRootsAlone(stats)}`);
        if (path === '/run/web') renameSync(at('run/web'), at('run/gone'));
        return isRootsAlone(stats);
      },
      root,
    );
    assert.deepEqual(passed, ['/ true', '/run true', '/run/web false']);
  });

  test('lead nowhere else where nobody runs either', () => {
    make('run/web', USER, 0o755);
    symlinkSync('/etc', at('run/web/below'));
    assert.match(ledElsewhere([at('run/web/below/x')])[0] ?? '', /which others than root can make$/);
    assert.deepEqual(ledElsewhere([at('run/web/x')]), []);
  });
});
