import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { renewSegmentSizes } from '../../../src/criu/restore/segment-sizes.ts';

const needsRoot = { skip: process.getuid?.() !== 0 ? 'only root may do this' : false };

/** Makes a connection as CRIU does (TCP_REPAIR), without a peer. Prints its descriptor and sizes. */
const CONNECTION = `
import socket, struct, sys
one = socket.socket(int(sys.argv[1]))
one.setsockopt(socket.SOL_TCP, 19, 1)
one.bind((sys.argv[2], 0))
one.connect((sys.argv[3], 9))
one.setsockopt(socket.SOL_TCP, 22, struct.pack('II', 2, 1400))
size = lambda: struct.unpack('I', one.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 20)[16:])[0]
print(one.fileno(), size(), flush=True)
sys.stdin.readline()
print(size(), flush=True)
`;

/** Bytes of the time stamps that each segment has, where the system uses them. */
const stamps = readFileSync('/proc/sys/net/ipv4/tcp_timestamps', 'utf8') === '0\n' ? 0 : 12;

const kinds = [
  ['IPv4', '2', '127.0.0.1', '127.0.0.1'],
  ['IPv6', '10', '::1', '::1'],
  ['IPv4 of an IPv6 socket', '10', '::ffff:127.0.0.1', '::ffff:127.0.0.1'],
] as const;

for (const [name, ...args] of kinds) {
  test(
    `a connection that was made again has segments as its peer takes them: ${name}`,
    needsRoot,
    async () => {
      const child = spawn('python3', ['-I', '-S', '-c', CONNECTION, ...args], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      try {
        const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
        const line = async (): Promise<string> => String((await lines.next()).value);
        const [fd = 0, before = 0] = (await line()).split(' ').map(Number);
        assert.ok(before < 1300, `${before}`);
        // The first is none of a socket.
        renewSegmentSizes([0, fd].map((one) => ({ pid: child.pid ?? 0, fd: one })));
        child.stdin.write('\n');
        assert.equal(Number(await line()) + stamps, 1400);
      } finally {
        child.kill('SIGKILL');
        await once(child, 'exit');
      }
    },
  );
}
