import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { parseConfig } from '../../src/config/config.ts';
import {
  addRules,
  configuredRules,
  describeRule,
  loadRules,
  type ProtectionRule,
  removeRules,
  unitName,
  updateRules,
} from '../../src/config/protection.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-protection-'));
after(() => rmSync(directory, { recursive: true }));

const redis: ProtectionRule = { kind: 'pid', pid: 4711, startTicks: 123, comm: 'redis-server' };
const joe: ProtectionRule = { kind: 'command', name: 'joe' };
const unit: ProtectionRule = { kind: 'unit', unit: 'redis.service' };
const alice = { name: 'alice', uid: 1001 };
const alicesTmux: ProtectionRule = { kind: 'command', name: 'tmux', user: alice };

let number = 0;
function newPath(): string {
  return join(directory, `state-${number++}`, 'protection.json');
}

function saved(rules: readonly ProtectionRule[]): string {
  const path = newPath();
  updateRules(() => rules, path);
  return path;
}

const filesBeside = (path: string): string[] => readdirSync(join(path, '..')).sort();

test('rules come back as they were saved, in a file of root alone', () => {
  const path = saved([redis, joe, unit, alicesTmux]);
  assert.deepEqual(loadRules(path), { rules: [redis, joe, unit, alicesTmux], problems: [] });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(join(path, '..')).mode & 0o777, 0o700);
  assert.deepEqual(filesBeside(path), ['protection.json']);
});

test('what a rule allows to be lost is kept with it, shown, and replaced or removed with it', () => {
  const lossy: ProtectionRule = { ...unit, allowLoss: ['connections'] };
  assert.deepEqual(loadRules(saved([lossy, joe])).rules, [lossy, joe]);
  assert.equal(describeRule(lossy), '--unit redis.service --allow-loss connections');
  assert.deepEqual(addRules([unit, joe], [lossy]), [joe, lossy]);
  assert.deepEqual(addRules([lossy], [unit]), [unit]);
  assert.deepEqual(removeRules([lossy, joe], [unit]), [joe]);
  const lossyPid: ProtectionRule = { ...redis, allowLoss: ['connections'] };
  assert.deepEqual(loadRules(saved([lossyPid])).rules, [lossyPid]);
});

test('who knows nothing of what may be lost finds the rules as they always were', () => {
  const path = saved([{ ...unit, allowLoss: ['connections'] }, joe]);
  const { version, rules } = JSON.parse(readFileSync(path, 'utf8'));
  assert.deepEqual([version, rules], [1, [unit, joe]]);
});

test('what may be lost and is damaged costs no rule, nor is it for another process of the same number', () => {
  const path = saved([joe]);
  const damaged = (allowances: unknown) => {
    writeFileSync(path, JSON.stringify({ version: 1, rules: [joe, redis], allowances }));
    return loadRules(path);
  };
  const known = { rule: joe, allowLoss: ['connections'] };
  const found = damaged([{ rule: redis, allowLoss: ['memory'] }, known]);
  assert.deepEqual(found.rules, [{ ...joe, allowLoss: ['connections'] }, redis]);
  assert.match(found.problems.join(), /what may be lost, 1 of 2 is damaged, and lost: /);
  const none = damaged('connections');
  assert.deepEqual([none.rules, none.problems.length], [[joe, redis], 1]);
  const other = damaged([{ rule: { ...redis, startTicks: 5 }, allowLoss: ['connections'] }]);
  assert.deepEqual(other, { rules: [joe, redis], problems: [] });
});

test('rules of files that knew no users are those of root', () => {
  const path = saved([]);
  writeFileSync(path, '{"version":1,"rules":[{"kind":"command","name":"joe"}]}');
  assert.deepEqual(loadRules(path), { rules: [joe], problems: [] });
});

test('without a file nothing is protected', () => {
  assert.deepEqual(loadRules(join(directory, 'missing.json')), { rules: [], problems: [] });
});

test('processes that protect at the same time leave the rules of all', { timeout: 120_000 }, async () => {
  const path = saved([joe]);
  const module = JSON.stringify(join(import.meta.dirname, '../../src/config/protection.ts'));
  const program = `import { addRules, updateRules } from ${module};
    for (let i = 0; i < 10; i++) updateRules((rules) => addRules(rules, [
      { kind: 'pid', pid: Number(process.env.FIRST) + i, startTicks: 1, comm: 'x' }]), ${JSON.stringify(path)});`;
  const writers = Array.from({ length: 3 }, (_, writer) =>
    spawn(process.execPath, ['--input-type=module', '-e', program], {
      env: { ...process.env, FIRST: String(100 * (writer + 1)) },
      stdio: 'inherit',
    }),
  );
  const codes = await Promise.all(writers.map(async (writer) => (await once(writer, 'exit'))[0]));
  assert.deepEqual(codes, [0, 0, 0]);
  const { rules, problems } = loadRules(path);
  assert.deepEqual(problems, []);
  assert.equal(rules.length, 1 + 3 * 10);
  assert.deepEqual(filesBeside(path), ['protection.json']);
});

test('a writer that is killed holds up nobody, and what it left is removed', async () => {
  const path = saved([joe]);
  const module = JSON.stringify(join(import.meta.dirname, '../../src/config/protection.ts'));
  const holder = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import { updateRules } from ${module};
       updateRules(() => { process.stdout.write('holds\\n'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); },
         ${JSON.stringify(path)});`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await once(holder.stdout, 'data');
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  writeFileSync(`${path}.0-0.new`, 'half of a f');
  updateRules((rules) => addRules(rules, [redis]), path);
  assert.deepEqual(loadRules(path).rules, [joe, redis]);
  assert.deepEqual(filesBeside(path), ['protection.json']);
});

test('a damaged file is named, costs what it held, and is kept when rules are written again', () => {
  const path = saved([joe]);
  const half = readFileSync(path, 'utf8').slice(0, 20);
  writeFileSync(path, half);
  const { rules, problems } = loadRules(path);
  assert.deepEqual(rules, []);
  assert.match(problems.join(), /protection\.json cannot be used, and its rules are lost: it is not JSON \(/);
  const updated = updateRules((before) => addRules(before, [redis]), path);
  assert.deepEqual(updated.before, []);
  const [, aside = ''] = /the damaged file is kept: (\S+)/.exec(updated.problems.join()) ?? [];
  assert.equal(readFileSync(aside, 'utf8'), half);
  assert.deepEqual(loadRules(path), { rules: [redis], problems: [] });
});

test('a damaged rule costs no other one', () => {
  const path = saved([]);
  const wrong = { ...redis, pid: -1 };
  writeFileSync(path, JSON.stringify({ version: 1, rules: [joe, wrong, 'x', unit] }));
  const { rules, problems } = loadRules(path);
  assert.deepEqual(rules, [joe, unit]);
  assert.match(problems[0] ?? '', /rule 2 of 4 is damaged, and lost: .*pid/);
  assert.match(problems[1] ?? '', /rule 3 of 4/);
  const updated = updateRules((before) => before, path);
  assert.equal(updated.problems.length, 3);
  assert.deepEqual(loadRules(path), { rules: [joe, unit], problems: [] });
  assert.equal(filesBeside(path).length, 2, 'the damaged file is there as well');
});

test('a file or directory that others can write to is not believed, nor is a link', () => {
  const path = saved([joe]);
  chmodSync(path, 0o666);
  assert.match(loadRules(path).problems.join(), /can be written by others \(mode 666\)/);
  chmodSync(path, 0o600);
  chmodSync(join(path, '..'), 0o777);
  assert.throws(() => updateRules(() => [], path), /state-\d+ can be written by others \(mode 777\)/);
  chmodSync(join(path, '..'), 0o700);
  renameSync(path, `${path}.real`);
  symlinkSync(`${path}.real`, path);
  assert.match(loadRules(path).problems.join(), /is a symbolic link/);
  assert.deepEqual(updateRules(() => [unit], path).after, [unit]);
  assert.match(readFileSync(`${path}.real`, 'utf8'), /joe/, 'what the link led to is as it was');
});

test('a pid that is protected again replaces the old rule', () => {
  const later: ProtectionRule = { ...redis, startTicks: 999 };
  assert.deepEqual(addRules([redis, joe], [later]), [joe, later]);
  assert.deepEqual(addRules([], [joe, joe]), [joe]);
});

test('unprotect takes away the rules it names and no other', () => {
  assert.deepEqual(removeRules([redis, joe, unit], [{ kind: 'pid', pid: 4711 }]), [joe, unit]);
  assert.deepEqual(removeRules([redis, joe], [{ kind: 'command', name: 'jo' }]), [redis, joe]);
  assert.deepEqual(removeRules([alicesTmux], [{ kind: 'command', name: 'tmux' }]), [alicesTmux]);
  const renamed = { name: 'alicia', uid: 1001 };
  assert.deepEqual(removeRules([alicesTmux], [{ kind: 'command', name: 'tmux', user: renamed }]), []);
});

test("the configuration's rules have its users' numbers; one whose user is gone costs no other", () => {
  const text = `[protect]\ncommands = ["tmux"]\nunits = ["redis"]\n[protect.users.alice]\ncommands = ["tmux"]
[protect.users.bob]\nunits = ["x"]\n[protect.users.root]\ncommands = ["joe"]\n`;
  const users = [alice, { name: 'root', uid: 0 }];
  const { rules, problems } = configuredRules(parseConfig(text, 'x'), (name) =>
    users.find((user) => user.name === name),
  );
  assert.deepEqual(rules.map(describeRule), [
    '--command tmux',
    '--unit redis.service',
    '--command tmux --user alice',
    '--command joe',
  ]);
  assert.deepEqual(problems, ['protect.users.bob: this system has no user bob']);
});

test('a unit without a suffix is a service', () => {
  assert.equal(unitName('redis'), 'redis.service');
  assert.equal(unitName('redis@1.2'), 'redis@1.2.service');
  assert.equal(unitName('session-1.scope'), 'session-1.scope');
});
