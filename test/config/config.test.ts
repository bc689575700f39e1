import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, defaultConfig, loadConfig, parseConfig } from '../../src/config/config.ts';
import { lineOfKey } from '../../src/config/locate.ts';

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
  assert.equal(config.images.directory, '/var/lib/otherworld/images');
  assert.equal(config.panic['on-hung-task'], true);
  assert.equal(config.panic['on-oops'], true);
});

test('a syntax error names its line', () => {
  assert.match(messageOf('[images]\nkeep = \n'), /^otherworld\.toml:2: not valid TOML: /);
});

test('an unknown key names its line', () => {
  assert.equal(
    messageOf('# comment\n[panic]\non-oops = true\non-ooops = true\n'),
    'otherworld.toml:4: unknown key panic.on-ooops',
  );
});

test('an unknown table names its line', () => {
  assert.equal(messageOf('\n[imagse]\nkeep = "never"\n'), 'otherworld.toml:2: unknown key imagse');
});

test('a wrong value names its line and what is wanted', () => {
  const wrong = [
    [
      '[images]\n\nkeep = "some"\n',
      '3: images.keep: one of "never", "failed", "always" is wanted, not "some"',
    ],
    ['images.directory = "here"', '1: images.directory: an absolute path is wanted'],
    ['protect = 3', '1: protect: a table is wanted, not 3'],
    ['[protect]\nunits = "x"', '2: protect.units: an array of strings in quotes is wanted, not "x"'],
    ['panic.on-oops = "yes"', '1: panic.on-oops: true or false is wanted, not "yes"'],
    ['panic.reboot-after-seconds = -1', '1: panic.reboot-after-seconds: at least 0 is wanted, not -1'],
    ['panic.reboot-after-seconds = 0.5', '1: panic.reboot-after-seconds: a whole number is wanted, not 0.5'],
    ['crash-loop.incidents = 2000', '1: crash-loop.incidents: at most 100 is wanted, not 2000'],
    ['crash-loop.within-minutes = 0', '1: crash-loop.within-minutes: more than 0 is wanted, not 0'],
  ] as const;
  for (const [text, message] of wrong) assert.equal(messageOf(text), `otherworld.toml:${message}`);
});

test('every problem gets its own line', () => {
  const message = messageOf('[panic]\non-oops = 1\nreboot-after-seconds = -1\n');
  assert.deepEqual(
    message.split('\n').map((line) => line.split(':')[1]),
    ['2', '3'],
  );
});

test('an element of an array is located at its key', () => {
  assert.equal(
    messageOf('[crash-kernel]\nadd-parameters = [\n  "a=b",\n  "two words",\n]\n'),
    'otherworld.toml:2: element 2 of crash-kernel.add-parameters: one parameter without spaces is wanted',
  );
  assert.equal(
    messageOf('[protect]\ncommands = ["redis-server", ""]\n'),
    'otherworld.toml:2: element 2 of protect.commands: it is empty',
  );
});

test('keys are found in tables, as dotted keys and quoted', () => {
  const text = 'a.b = 1\n[c]\nd = 2\n"e f" = 3\n[c.g]\nh = 4\n';
  assert.equal(lineOfKey(text, ['a', 'b']), 1);
  assert.equal(lineOfKey(text, ['c', 'd']), 3);
  assert.equal(lineOfKey(text, ['c', 'e f']), 4);
  assert.equal(lineOfKey(text, ['c', 'g', 'h']), 6);
  assert.equal(lineOfKey(text, ['c', 'missing']), 2);
  assert.equal(lineOfKey(text, ['nowhere']), undefined);
});
