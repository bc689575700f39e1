import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseStreamState } from '../../../../../src/capture/files/sockets/unix/journal.ts';

const FILE = `# This is private data. Do not parse
PRIORITY=30
LEVEL_PREFIX=1
FORWARD_TO_SYSLOG=0
FORWARD_TO_KMSG=0
FORWARD_TO_CONSOLE=0
STREAM_ID=0123456789abcdef0123456789abcdef
IDENTIFIER=a name
UNIT=a.service
`;

test('a stream of the journal has its identifier, level and prefix', () => {
  assert.deepEqual(parseStreamState(FILE), {
    stream: { identifier: 'a name', level: 6, levelPrefix: true },
    lost: [],
  });
});

test('an identifier is freed of its escapes, and may be missing', () => {
  const named = FILE.replace('a name', '\\303\\274\\\\\\t"');
  assert.equal(parseStreamState(named)?.stream.identifier, 'ü\\\t"');
  assert.equal(parseStreamState(FILE.replace(/IDENTIFIER.*\n/, ''))?.stream.identifier, '');
});

test('where else the journal forwarded it to is said', () => {
  const forwarded = FILE.replace('TO_KMSG=0', 'TO_KMSG=1').replace('TO_CONSOLE=0', 'TO_CONSOLE=1');
  assert.deepEqual(parseStreamState(forwarded)?.lost, [
    "its output is no longer forwarded to the kernel's log",
    'its output is no longer forwarded to the console',
  ]);
});

test('a facility that systemd does not give on its own is said', () => {
  const lost = ['its output has lost its facility 16 (SyslogFacility=)'];
  assert.deepEqual(parseStreamState(FILE.replace('=30', '=134'))?.lost, lost);
});

test('an identifier that would be more than a line is damage', () => {
  for (const bad of ['a\\000b', 'a\0b', 'a\\nb'])
    assert.equal(parseStreamState(FILE.replace('a name', bad)), undefined);
});

test('a file without a priority, or with an impossible one, is not taken for such a file', () => {
  assert.equal(parseStreamState(''), undefined);
  assert.equal(parseStreamState(FILE.replace('PRIORITY=30', 'PRIORITY=-1')), undefined);
  assert.equal(parseStreamState(FILE.replace('LEVEL_PREFIX=1', 'LEVEL_PREFIX=\0')), undefined);
});
