import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { type FoundFile, noteFound } from '../../../src/crash-world/files/found-file.ts';
import { changedWhileHeld, examinedOf, examineGroup } from '../../../src/crash-world/processes/examine.ts';
import { noteUnchanged } from '../../../src/crash-world/sandbox/unchanged-files.ts';
import { noFiles } from '../../../src/model/file.ts';
import type { ProcessGroup } from '../../../src/model/group.ts';
import { areaOf } from '../../criu/processes.ts';
import { pathFileOf, stoppedGroup } from '../live-group.ts';

const isRoot = process.getuid?.() === 0;

suite('the files of a restored process', { skip: isRoot ? false : 'only root may look at them' }, () => {
  let directory = '';
  let subject: ChildProcess | undefined;
  const path = (name: string) => join(directory, name);

  beforeEach(() => {
    directory = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-examine-')));
    writeFileSync(path('file'), 'what it was');
    mkdirSync(path('cwd'));
  });
  afterEach(() => {
    subject?.kill('SIGKILL');
    rmSync(directory, { recursive: true });
  });

  /** Starts a process with `file` as its standard input, in `cwd`. */
  async function start(): Promise<ProcessGroup> {
    const input = openSync(path('file'), 'r');
    subject = spawn('sh', ['-c', 'kill -STOP $$'], { cwd: path('cwd'), stdio: [input, 'ignore', 'ignore'] });
    closeSync(input);
    return stoppedGroup(subject);
  }

  /** As the crash world does before the first restore. */
  function check(...names: string[]): Map<string, FoundFile> {
    const found = new Map<string, FoundFile>();
    noteFound({ ...noFiles, files: names.map((name, i) => pathFileOf(i, path(name))) }, found);
    return found;
  }

  test('are right if they are those that were checked', async () => {
    const found = check('file', 'cwd');
    const group = await start();
    noteFound(group.files, found);
    assert.deepEqual(examineGroup(examinedOf(group), found), []);
  });

  test('are wrong if another file was put in the place of one between the check and the opening', async () => {
    const found = check('file', 'cwd');
    writeFileSync(path('other'), 'what it was');
    renameSync(path('other'), path('file'));
    const group = await start();
    noteFound(group.files, found);
    const [problem, ...others] = examineGroup(examinedOf(group), found);
    assert.match(problem ?? '', /^process \d+: fd 0 is another file than \/.*\/file \(inode \d+ on device/);
    assert.deepEqual(others, []);
  });

  test('are wrong if a link was put in the place of one, or of a directory', async () => {
    const found = check('file', 'cwd');
    const links = [
      { was: pathFileOf(0, path('file')), target: '/etc/passwd' },
      { was: pathFileOf(0, path('cwd')), target: '/etc' },
    ];
    for (const { was, target } of links) {
      renameSync(was.path, `${was.path} of then`);
      symlinkSync(target, was.path);
    }
    const group = await start();
    noteFound(group.files, found);
    const files = group.files.files.map((file) => {
      const link = links.find(({ target }) => file.type === 'path' && file.path === target);
      return link === undefined ? file : { ...link.was, id: file.id };
    });
    const problems = examineGroup(examinedOf({ ...group, files: { ...group.files, files } }), found);
    assert.equal(problems.length, 2);
    assert.match(problems[0] ?? '', /fd 0 is another file than \/.*\/file/);
    assert.match(problems[1] ?? '', /the working directory is another file than \/.*\/cwd/);
  });

  test('are wrong if there is one more, or one less', async () => {
    const group = await start();
    const found = new Map<string, FoundFile>();
    noteFound(group.files, found);
    const [table] = group.files.tables;
    const descriptors = (table?.descriptors ?? []).filter(({ fd }) => fd !== 0);
    const [process] = group.processes;
    const without = { ...group, files: { ...group.files, tables: [{ filesId: group.id, descriptors }] } };
    assert.match(examineGroup(examinedOf(without), found)[0] ?? '', /fd 0 is \/.*\/file, and it had none/);
    const [area] = process?.memory?.vmas ?? [];
    assert.ok(process?.memory !== undefined && area !== undefined);
    const more = areaOf(0x10000, 1, { kind: 'file-private', fileId: area.fileId ?? 0 });
    const vmas = [more, ...process.memory.vmas.slice(1)];
    const other = { ...group, processes: [{ ...process, memory: { ...process.memory, vmas } }] };
    const problems = examineGroup(examinedOf(other), found);
    assert.equal(problems.length, 2);
    assert.match(problems[0] ?? '', /the mapping [0-9a-f]+-[0-9a-f]+ is .*, and it had none/);
    assert.match(problems[1] ?? '', /the mapping at 0x10000 is of no file any more/);
  });

  test('are looked at once more before they are let go, whatever is at their paths by then', async () => {
    const group = await start();
    const examined = examinedOf(group);
    const unchanged = noteUnchanged(group.files);
    assert.deepEqual(changedWhileHeld(examined, unchanged), []);
    const changed = (): bigint => statSync(path('file'), { bigint: true }).ctimeNs;
    const before = changed();
    // The kernel's clock for files goes on by ticks.
    while (changed() === before) writeFileSync(path('file'), 'what it is!');
    renameSync(path('file'), path('elsewhere'));
    writeFileSync(path('file'), 'what it was');
    assert.deepEqual(changedWhileHeld(examined, unchanged), [
      `${path('file')} was changed while the system booted`,
    ]);
  });

  test('cannot be told where a descriptor is not there', async () => {
    const group = await start();
    const table = { filesId: group.id, descriptors: [{ fd: 77, fileId: 1, closeOnExec: false }] };
    assert.throws(
      () => examineGroup(examinedOf({ ...group, files: { ...group.files, tables: [table] } }), new Map()),
      {
        code: 'ENOENT',
      },
    );
  });
});
