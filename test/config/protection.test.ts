import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { parseConfig } from '../../src/config/config.ts';
import {
  addRule,
  allRules,
  describeRule,
  loadRules,
  ProtectionError,
  type ProtectionRule,
  removeRule,
  saveRules,
  unitName,
} from '../../src/config/protection.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-protection-'));
after(() => rmSync(directory, { recursive: true }));

const redis: ProtectionRule = { kind: 'pid', pid: 4711, startTicks: 123, comm: 'redis-server' };
const joe: ProtectionRule = { kind: 'command', name: 'joe' };
const unit: ProtectionRule = { kind: 'unit', unit: 'redis.service' };

test('rules come back as they were saved, in a file of root alone', () => {
  const path = join(directory, 'new', 'protection.json');
  saveRules([redis, joe, unit], path);
  assert.deepEqual(loadRules(path), [redis, joe, unit]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(join(directory, 'new')).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(join(directory, 'new')), ['protection.json']);
});

test('without a file nothing is protected', () => {
  assert.deepEqual(loadRules(join(directory, 'missing.json')), []);
});

test('a damaged file is an error that says what to do', () => {
  const path = join(directory, 'damaged.json');
  saveRules([joe], path);
  writeFileSync(path, readFileSync(path, 'utf8').slice(0, 20));
  assert.throws(() => loadRules(path), ProtectionError);
  writeFileSync(path, '{"version":1,"rules":[{"kind":"pid","pid":-1,"startTicks":0,"comm":"x"}]}');
  assert.throws(() => loadRules(path), /remove it and protect the processes again/);
});

test('a pid that is protected again replaces the old rule', () => {
  const later: ProtectionRule = { ...redis, startTicks: 999 };
  assert.deepEqual(addRule([redis, joe], later), [joe, later]);
});

test('unprotect takes away the rule it names and no other', () => {
  assert.deepEqual(removeRule([redis, joe, unit], { kind: 'pid', pid: 4711 }), [joe, unit]);
  assert.deepEqual(removeRule([redis, joe, unit], { kind: 'command', name: 'jo' }), [redis, joe, unit]);
});

test("the configuration's rules and the saved ones hold together", () => {
  const config = parseConfig('[protect]\ncommands = ["tmux"]\nunits = ["redis"]\n', 'x');
  assert.deepEqual(allRules(config, [joe]).map(describeRule), [
    '--command tmux',
    '--unit redis.service',
    '--command joe',
  ]);
});

test('a unit without a suffix is a service', () => {
  assert.equal(unitName('redis'), 'redis.service');
  assert.equal(unitName('redis@1.2'), 'redis@1.2.service');
  assert.equal(unitName('session-1.scope'), 'session-1.scope');
});
