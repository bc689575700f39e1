import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, defaultConfig, loadConfig, parseConfig } from '../../src/config/config.ts';

function messageOf(text: string): string {
  try {
    parseConfig(text, 'otherworld.toml');
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.message;
  }
  return assert.fail('the configuration was accepted');
}

test('an empty file and a missing file are the defaults', () => {
  assert.deepEqual(parseConfig('', 'x'), defaultConfig());
  assert.deepEqual(loadConfig('/nonexistent/otherworld.toml'), defaultConfig());
  assert.equal(defaultConfig().panic['on-oops'], true);
  assert.equal(defaultConfig().images.keep, 'failed');
});

test('a file that cannot be read is named', () => {
  assert.throws(() => loadConfig(import.meta.dirname), {
    name: 'ConfigError',
    message: /\/config: cannot be read: EISDIR/,
  });
});

test('what the file sets is taken, the rest keeps its default', () => {
  const config = parseConfig('[images]\nkeep = "always"\n[panic]\non-hung-task = true\n', 'x');
  assert.equal(config.images.keep, 'always');
  assert.equal(config.services.sandboxes, 'restore');
  assert.equal(parseConfig('[services]\nsandboxes = "refuse"\n', 'x').services.sandboxes, 'refuse');
  assert.equal(config.images.directory, '/var/lib/otherworld/images');
  assert.equal(config.panic['on-hung-task'], true);
  assert.equal(config.panic['on-oops'], true);
});

test('a syntax error names its place, and what to do', () => {
  const wrong = [
    ['[images]\nkeep = \n', '2:7: not valid TOML: a value is wanted after =: a string in quotes'],
    ['[images]\nkeep = # later\n\n', '2:7: not valid TOML: a value is wanted after =: '],
    ['[images]\nkeep = always\n', '2:7: not valid TOML: a value is wanted after =: '],
    ['[images]\nkeep = "always\n', '2:15: not valid TOML: the closing quote is missing'],
    ['[protect]\nunits = ["x"\n"y"]\n', '3:1: not valid TOML: a comma is missing before this'],
    ['[images]\nkeep = """\na =\n', '4:1: not valid TOML: the closing quote is missing'],
    ['[panic\non-oops = true\n', '2:1: not valid TOML: '],
  ] as const;
  for (const [text, message] of wrong) {
    assert.ok(messageOf(text).startsWith(`otherworld.toml:${message}`), messageOf(text));
  }
});

test('a key that is set twice names the place of the second', () => {
  assert.equal(
    messageOf('[panic]\non-oops = true\non-oops = false\n'),
    'otherworld.toml:3:1: not valid TOML: this is set above already: remove one of the two',
  );
  assert.match(
    messageOf('[panic]\n[images]\n[panic]\n'),
    /^otherworld\.toml:3:2: not valid TOML: this is set/,
  );
});

test('an unknown key names its place, and the keys that there are', () => {
  assert.equal(
    messageOf('# comment\n[incidents]\nkeep = 3\n  keeep = 3\n'),
    'otherworld.toml:4:3: unknown key incidents.keeep; keys of incidents are keep, max-age-days',
  );
  assert.equal(
    messageOf('[protect.users.alice]\nunit = []\n'),
    'otherworld.toml:2:1: unknown key protect.users.alice.unit; keys of protect.users.alice are commands, units',
  );
  assert.match(messageOf('__proto__.x = 1'), /^otherworld\.toml:1:1: unknown key __proto__; /);
});

test('an unknown table names its place', () => {
  assert.match(
    messageOf('\n[imagse]\nkeep = "never"\n'),
    /^otherworld\.toml:2:2: unknown key imagse; tables are protect, images, incidents, /,
  );
});

test('a wrong value names its place and what is wanted', () => {
  const wrong = [
    [
      '[images]\n\nkeep = "some"\n',
      '3:8: images.keep: one of "never", "failed", "always" is wanted, not "some"',
    ],
    ['images.directory = "here"', '1:20: images.directory: an absolute path is wanted'],
    ['protect = 3', '1:11: protect: a table is wanted, not 3'],
    ['[protect]\nunits = "x"', '2:9: protect.units: an array of strings in quotes is wanted, not "x"'],
    ['panic.on-oops = "yes"', '1:17: panic.on-oops: true or false is wanted, not "yes"'],
    ['panic.reboot-after-seconds = -1', '1:30: panic.reboot-after-seconds: at least 0 is wanted, not -1'],
    [
      'panic.reboot-after-seconds = 0.5',
      '1:30: panic.reboot-after-seconds: a whole number is wanted, not 0.5',
    ],
    ['crash-loop.incidents = 2000', '1:24: crash-loop.incidents: at most 100 is wanted, not 2000'],
    ['crash-loop.within-minutes = 0', '1:29: crash-loop.within-minutes: more than 0 is wanted, not 0'],
    ['[[protect]]\ncommands = []', '1:3: protect: a table is wanted, not [{"commands":[]}]'],
  ] as const;
  for (const [text, message] of wrong) assert.equal(messageOf(text), `otherworld.toml:${message}`);
});

test('every problem gets its own line', () => {
  const message = messageOf('[panic]\non-oops = 1\nreboot-after-seconds = -1\n');
  assert.deepEqual(
    message.split('\n').map((line) => line.split(':').slice(1, 3).join(':')),
    ['2:11', '3:24'],
  );
});

test('an element of an array has its own place', () => {
  assert.equal(
    messageOf('[crash-kernel]\nadd-parameters = [\n  "a=b",\n  "two words",\n]\n'),
    'otherworld.toml:4:3: element 2 of crash-kernel.add-parameters: one parameter without spaces is wanted',
  );
  assert.equal(
    messageOf('[protect]\ncommands = ["redis-server", ""]\n'),
    'otherworld.toml:2:29: element 2 of protect.commands: it is empty',
  );
});
