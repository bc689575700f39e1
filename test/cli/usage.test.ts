import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Command } from 'commander';
import { runDemo } from '../../lab/demo/run.ts';
import { UsageError } from '../../src/cli/arguments.ts';
import { installedCommands } from '../../src/cli/commands.ts';
import { checkDirectory } from '../../src/cli/extract.ts';
import { checkCore, describeCore } from '../../src/cli/extract-core.ts';
import { registerLab } from '../../src/cli/lab.ts';
import { buildProgram } from '../../src/cli/program.ts';
import { requireOneThing } from '../../src/cli/report.ts';
import { requireTarget } from '../../src/cli/rule-targets.ts';
import { requireAllAlone } from '../../src/cli/unprotect.ts';

test('--help of no command says that an option which may be repeated is an empty list', async () => {
  const pending: Command[] = [await buildProgram({ ...installedCommands, lab: async () => registerLab }, [])];
  let said = '';
  for (let command = pending.pop(); command !== undefined; command = pending.pop()) {
    const help = command.helpInformation();
    assert.doesNotMatch(help, /\[\]\)/, command.name());
    said += help;
    pending.push(...command.commands);
  }
  assert.match(said, /--pid <pid\.\.\.> +processes$/m);
  assert.match(said, /\(default: 2048\)/);
});

const none = { pid: [], command: [], unit: [] };

test('an empty name is refused: as a rule it would count as damaged', () => {
  assert.throws(() => requireTarget({ ...none, command: ['tmux', ''] }), /a name is empty/);
  assert.throws(() => requireTarget({ ...none, unit: [''] }), /a name is empty/);
});

test('unprotect --all takes nothing beside it', () => {
  requireAllAlone(none);
  assert.throws(() => requireAllAlone({ ...none, pid: [5] }), UsageError);
  assert.throws(() => requireAllAlone({ ...none, user: 'alice' }), UsageError);
});

test('report does one thing at a time', () => {
  requireOneThing('some-incident', { prune: true });
  requireOneThing(undefined, { list: true, json: true });
  assert.throws(
    () => requireOneThing(undefined, { list: true, prune: true }),
    /one at a time: --list, --prune/,
  );
  requireOneThing('some-incident', { why: 812, json: true });
  assert.throws(
    () => requireOneThing(undefined, { why: 812, schema: true }),
    /one at a time: --schema, --why/,
  );
  assert.throws(() => requireOneThing('some-incident', { list: true }), /--list goes without an incident/);
});

test('images go into a directory that is new or empty', () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-usage-'));
  try {
    const file = join(directory, 'file');
    checkDirectory(directory);
    checkDirectory(file);
    writeFileSync(file, '');
    assert.throws(() => checkDirectory(file), /is not a directory; name a new one/);
    assert.throws(() => checkDirectory(directory), /is not empty/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a core is of one process, and takes the place of no other file', () => {
  assert.equal(checkCore('/nowhere/core', [812]), 812);
  assert.throws(() => checkCore('/nowhere/core', [812, 813]), /--core is of one process/);
  assert.throws(() => checkCore('/dev/null', [812]), /\/dev\/null is there already; name a new file/);
});

test('what is in a core is said in two lines', () => {
  const pages = { memory: 24, zeros: 8, unwanted: 197, inFile: 0, swapped: 0, notInDump: 0, unreadable: 0 };
  const threads = [{ tid: 812, comm: 'web' }];
  const written = {
    pid: 812,
    comm: 'web',
    threads,
    areas: 19,
    pages,
    sizeBytes: 2 ** 20,
    missing: [],
    notes: [],
  };
  assert.equal(
    describeCore('core', written),
    'core: web (pid 812), 1 thread, 19 memory areas\n' +
      '  24 pages of memory; 8 never touched, 197 left to their files or not wanted; 1.0 MiB with its holes',
  );
});

test('a demo without a CPU is refused before anything is built', async () => {
  const progress = {
    step: (message: string) => {
      throw new Error(`began with: ${message}`);
    },
  };
  const options = { guest: 'usage', release: 'trixie', cpus: 0, quick: false, keep: false } as const;
  await assert.rejects(
    runDemo(options, { progress, show: () => undefined }),
    /--cpus 0: a guest needs a CPU/,
  );
});
