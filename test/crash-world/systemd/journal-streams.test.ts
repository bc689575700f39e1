import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { relayOf, serviceManager, streamState } from '../../../src/crash-world/systemd/journal-streams.ts';
import { removeSystemDropIns, writeJournalDropIn } from '../../../src/crash-world/systemd/units.ts';
import { relayArguments } from '../../../src/criu/restore/journal-socket.ts';
import { takeDescriptor } from '../../../src/system/descriptors.ts';

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

/** What PID 1 does with messages; it says which ones it has read before it answers. */
const manager = `import os, socket, sys, time
path, log = sys.argv[1:]
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
own.bind(path)
print('ready', flush=True)
for _ in range(2):
    text, fds, _, _ = socket.recv_fds(own, 64, 1)
    time.sleep(0.2)
    with open(log, 'a') as file: file.write('%s %s\\n' % (text.decode(), os.readlink('/proc/self/fd/%d' % fds[0])))
    os.close(fds[0])`;

test('the service manager gets the descriptor itself, and who gave it waits until it has', async () => {
  const path = join(directory, 'notify');
  const log = join(directory, 'notified');
  const child = spawn('python3', ['-c', manager, path, log], { stdio: ['ignore', 'pipe', 'inherit'] });
  const kept = openSync(directory, 'r');
  try {
    await once(child.stdout, 'data');
    const to = serviceManager(path);
    to.store(kept);
    to.settle(60_000);
    const [first, second] = readFileSync(log, 'utf8').split('\n');
    assert.equal(first, `FDSTORE=1 ${directory}`);
    assert.match(second ?? '', /^BARRIER=1 socket:/);
    // It has ended, and reads no more.
    await once(child, 'exit');
    assert.throws(() => to.settle(0));
    to.close();
  } finally {
    closeSync(kept);
    child.kill('SIGKILL');
  }
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
