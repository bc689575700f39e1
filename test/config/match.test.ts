import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeNamesakes, isNamesake, type Matchable, matchesRule } from '../../src/config/match.ts';
import { namedRules, type ProtectionRule } from '../../src/config/protection.ts';

const alice = { name: 'alice', uid: 1000 };
const ALICES = '/user.slice/user-1000.slice';

function inCgroup(cgroup: string, owner = 0): Matchable {
  return { pid: 10, comm: 'redis-server', exe: '/usr/bin/redis-server', cgroup, startTicks: 1, owner };
}

function unitRule(unit: string, user?: typeof alice): ProtectionRule {
  return namedRules({ commands: [], units: [unit] }, user)[0] ?? assert.fail();
}

function commandRule(name: string, user?: typeof alice): ProtectionRule {
  return namedRules({ commands: [name], units: [] }, user)[0] ?? assert.fail();
}

test("a name stands for root's processes, whatever others call theirs", () => {
  const rule = commandRule('redis-server');
  assert.ok(matchesRule(rule, inCgroup('/system.slice/x.service')));
  assert.ok(matchesRule(rule, inCgroup(`${ALICES}/session-1.scope`)), 'a shell of sudo is root all the same');
  assert.ok(!matchesRule(rule, inCgroup('/system.slice/cron.service', 1000)));
  const setUserId = { ...inCgroup('/system.slice/x.service'), owner: undefined };
  assert.ok(!matchesRule(rule, setUserId), 'whoever starts a set-user-ID program names it');
});

test("with a user it stands for that user's processes only", () => {
  const rule = commandRule('redis-server', alice);
  assert.ok(matchesRule(rule, inCgroup('/system.slice/x.service', 1000)));
  assert.ok(!matchesRule(rule, inCgroup('/system.slice/x.service', 0)));
  assert.ok(!matchesRule(rule, inCgroup('/system.slice/x.service', 1001)));
});

test("a unit is known by its place in the system manager's tree", () => {
  const rule = unitRule('redis');
  assert.ok(matchesRule(rule, inCgroup('/system.slice/redis.service', 105)));
  assert.ok(matchesRule(rule, inCgroup('/system.slice/system-x.slice/redis.service/delegated')));
  for (const elsewhere of [
    `${ALICES}/user@1000.service/app.slice/redis.service`,
    `${ALICES}/user@1000.service/redis.service`,
    '/system.slice/docker-1.scope/redis.service',
    '/system.slice/docker-1.scope/system.slice/redis.service',
    '/machine.slice/machine-x.scope/payload/system.slice/redis.service',
  ]) {
    assert.ok(!matchesRule(rule, inCgroup(elsewhere)), elsewhere);
    assert.ok(isNamesake(rule, inCgroup(elsewhere)));
  }
});

test('a slice stands for all in it, but only where it is one', () => {
  assert.ok(matchesRule(unitRule('system.slice'), inCgroup('/system.slice/redis.service')));
  assert.ok(matchesRule(unitRule('user-1000.slice'), inCgroup(`${ALICES}/session-1.scope`, 1000)));
  const inContainer = inCgroup('/machine.slice/machine-x.scope/system.slice/x.service');
  assert.ok(!matchesRule(unitRule('system.slice'), inContainer));
  assert.ok(!matchesRule(unitRule('app.slice'), inCgroup(`${ALICES}/user@1000.service/app.slice/x.service`)));
});

test("a user's unit is named with the user", () => {
  const own = inCgroup(`${ALICES}/user@1000.service/app.slice/redis.service`, 1000);
  assert.ok(matchesRule(unitRule('redis', alice), own));
  assert.ok(matchesRule(unitRule('app.slice', alice), own));
  assert.ok(!matchesRule(unitRule('redis', { name: 'bob', uid: 1001 }), own));
  assert.ok(!matchesRule(unitRule('redis', alice), inCgroup('/system.slice/redis.service', 1000)));
  const roots = inCgroup('/user.slice/user-0.slice/user@0.service/app.slice/redis.service');
  assert.ok(matchesRule(unitRule('redis'), roots), "root's own manager is root's as well");
});

test("a user's manager is believed in the user's own slice only", () => {
  const foreign = inCgroup(`${ALICES}/user@0.service/app.slice/redis.service`, 1000);
  assert.ok(!matchesRule(unitRule('redis'), foreign));
  assert.ok(!matchesRule(unitRule('redis', alice), foreign));
});

test('a session has the number of anybody: it is meant with its user', () => {
  const session = inCgroup(`${ALICES}/session-3.scope`, 1000);
  assert.ok(!matchesRule(unitRule('session-3.scope'), session));
  assert.ok(matchesRule(unitRule('session-3.scope', alice), session));
  const roots = inCgroup('/user.slice/user-0.slice/session-3.scope');
  assert.ok(matchesRule(unitRule('session-3.scope'), roots));
});

test('who has the name and is not meant is said, with what would name them', () => {
  const others = [inCgroup('/system.slice/redis-server.service', 105)];
  assert.equal(
    describeNamesakes(commandRule('redis-server'), others),
    "not meant: redis-server (10) of user 105; name another user's with --user, or a service with --unit",
  );
  assert.equal(describeNamesakes(commandRule('redis-server'), []), '');
});
