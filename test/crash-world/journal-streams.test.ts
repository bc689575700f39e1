import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { relayOf, storeDescriptor, streamState } from '../../src/crash-world/journal-streams.ts';
import { removeSystemDropIns, writeJournalDropIn } from '../../src/crash-world/units.ts';
import { relayArguments } from '../../src/criu/restore/journal-socket.ts';
import { SOCK_DGRAM } from '../../src/system/abi.ts';
import { takeDescriptor } from '../../src/system/descriptors.ts';
import { AF_UNIX, bind, recv, socket } from '../../src/system/sockets.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-streams-'));
after(() => rmSync(directory, { recursive: true }));

test('a relay is told by its command line, which says how its stream is treated', () => {
  const stream = { identifier: 'a b', level: 4, levelPrefix: true };
  assert.deepEqual(relayOf(`${['/bin/sh', ...relayArguments(stream)].join('\0')}\0`), stream);
});

test('a stream is taken from the process that keeps it', () => {
  const keeper = spawn('sleep', ['60'], { stdio: ['pipe', 'ignore', 'ignore'] });
  try {
    const fd = takeDescriptor(keeper.pid ?? 0, 0);
    assert.equal(`socket:[${fstatSync(fd).ino}]`, readlinkSync(`/proc/${keeper.pid}/fd/0`));
    closeSync(fd);
  } finally {
    keeper.kill('SIGKILL');
  }
});

test('another process is no relay, whatever it runs', () => {
  assert.equal(relayOf('/bin/sh\0-c\0exec x\0otherworld\0web\x006\0true\0'), undefined);
  assert.equal(relayOf('/bin/sh\0-c\0exec x\0otherworld-log\0web\x0077\0true\0'), undefined);
  assert.equal(relayOf(''), undefined);
});

test('what the journal is told of a stream is what it keeps of its own', () => {
  assert.equal(
    streamState({ identifier: 'a "b" $c\\', level: 4, levelPrefix: false }),
    'PRIORITY=4\nLEVEL_PREFIX=0\nFORWARD_TO_SYSLOG=0\nFORWARD_TO_KMSG=0\nFORWARD_TO_CONSOLE=0\n' +
      'IDENTIFIER="a \\"b\\" \\$c\\\\"\n',
  );
  assert.doesNotMatch(streamState({ identifier: '', level: 6, levelPrefix: true }), /IDENTIFIER/);
});

test('the service manager gets the descriptor itself', () => {
  const path = join(directory, 'notify');
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(path, 2);
  const manager = socket(AF_UNIX, SOCK_DGRAM, 0);
  assert.ok(manager >= 0 && bind(manager, address, 2 + path.length + 1) === 0);
  storeDescriptor(path, 0);
  const text = Buffer.alloc(64);
  const length = recv(manager, text, text.length, 0x40);
  assert.equal(text.toString('latin1', 0, length), 'FDSTORE=1');
  closeSync(manager);
});

test('whatever becomes of the streams, the journal starts, and the relays are told', () => {
  writeJournalDropIn(directory);
  const text = readFileSync(join(directory, 'systemd-journald.service.d/zzzz-otherworld.conf'), 'utf8');
  const commands = text.split('\n').filter((line) => line.startsWith('ExecStartPre='));
  assert.ok(commands.length === 2 && commands.every((line) => line.startsWith('ExecStartPre=-+')));
  assert.match(commands[0] ?? '', /timeout \d+ .* journal$/);
  assert.match(commands[1] ?? '', /\|\| : >>\/run\/otherworld\/streams-taken"$/);
  removeSystemDropIns(directory);
  assert.throws(() => readFileSync(join(directory, 'systemd-journald.service.d/zzzz-otherworld.conf')));
});
