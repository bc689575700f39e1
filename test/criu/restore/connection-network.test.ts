// Changes the network: in a network namespace of its own, for which the file runs itself once more.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import {
  endLending,
  ip,
  LAST_METRIC,
  lendAddresses,
  missingAddresses,
} from '../../../src/criu/restore/connection-network.ts';
import { INTERFACE, LENT_TABLE } from '../../../src/criu/restore/names.ts';

const needsRoot = { skip: process.getuid?.() !== 0 ? 'only root may do this' : false };
const INSIDE = 'OTHERWORLD_TEST_NETWORK';
const isInside = process.env[INSIDE] !== undefined;

/** Of the machine, with and without a carrier, and of nobody's, or another machine's in the same network. */
const HAS = { four: '192.0.2.5', six: '2001:db8::5', withoutCarrier: '198.51.100.7' } as const;
const MOVED = { four: '192.0.2.9', six: '2001:0db8:0000:0000:0000:0000:0000:0009' } as const;
const OWN = [...Object.values(HAS), ...Object.values(MOVED)];
const PEERS = { four: ['203.0.113.1', '192.0.2.2'], six: ['2001:db9::1', '2001:db8::2'] } as const;

/** Asks for the address of another machine, as one of the same network. */
const ASK = `
import socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x806))
wire.bind(('far0', 0))
mine = wire.getsockname()[4]
def ask(address):
    words = struct.pack('!HHBBH', 1, 0x800, 6, 4, 1) + mine + socket.inet_aton('192.0.2.2')
    wire.send(b'\\xff' * 6 + mine + b'\\x08\\x06' + words + bytes(6) + socket.inet_aton(address))
# What is asked last is answered: so what was asked before it has been, or never will be.
for address in sys.argv[1:]:
    ask(address)
answered = []
while sys.argv[-1] not in answered:
    packet, sender = wire.recvfrom(100)
    if sender[2] != socket.PACKET_OUTGOING and packet[20:22] == b'\\0\\2':
        answered.append(socket.inet_ntoa(packet[28:32]))
print(' '.join(answered))
`;

/** A connection made as CRIU does, and what another program finds that has not chosen an address. */
const CONNECT = `
import errno, socket, sys
def made(own, peer):
    one = socket.socket(socket.AF_INET6 if ':' in own else socket.AF_INET)
    one.setsockopt(socket.SOL_TCP, 19, 1)
    one.bind((own, 40000))
    one.connect((peer, 80))
    return one.getsockname()[0] + ' ' + one.getpeername()[0]
def other(to):
    one = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET)
    one.setblocking(False)
    result = one.connect_ex((to, 5432))
    return 'from ' + one.getsockname()[0] if result == errno.EINPROGRESS else errno.errorcode[result]
for line in sys.argv[1:]:
    own, peer = line.split()
    print(made(own, peer) if own != '-' else other(peer))
`;

const python = (script: string, args: readonly string[], into: readonly string[] = []): string[] => {
  const [program = '', ...all] = [...into, 'python3', '-I', '-S', '-c', script, ...args];
  const { stdout, stderr } = spawnSync(program, all, { encoding: 'utf8', timeout: 20_000 });
  assert.equal(stderr, '');
  return stdout.trim().split('\n');
};
const shown = (...args: string[]): string => spawnSync('ip', args, { encoding: 'utf8' }).stdout;
const network = (): string[] =>
  [
    ['-4', 'rule'],
    ['-6', 'rule'],
    ['-4', 'route', 'show', 'table', 'all'],
  ].map((args) => shown(...args));

test('a network is lent', { skip: isInside || needsRoot.skip }, () => {
  const env = { ...process.env, [INSIDE]: '1', NODE_TEST_CONTEXT: undefined };
  const script = 'ip link set lo up && exec "$0" --test "$1"';
  const args = ['--net', 'sh', '-c', script, process.execPath, import.meta.filename];
  const { status, stdout, stderr } = spawnSync('unshare', args, { env, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
});

suite('a system that runs, while connections are made', { skip: !isInside }, () => {
  const far = spawn('unshare', ['--net', 'sleep', '1000'], { stdio: 'ignore' });
  const inFar = ['nsenter', '-n', '-t', String(far.pid)];
  const runInFar = (...args: string[]) =>
    spawnSync('nsenter', [...inFar.slice(1), ...args], { encoding: 'utf8' });
  let usual: string[] = [];

  before(async () => {
    // A new network namespace has a loopback that is down; the parent's is up.
    const end = performance.now() + 20_000;
    while (!runInFar('ip', 'link').stdout.includes('state DOWN')) {
      assert.ok(performance.now() < end);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    ip([
      'link add eth0 type veth peer name far0',
      `link set far0 netns ${far.pid}`,
      'link set eth0 up',
      `address add ${HAS.four}/24 dev eth0`,
      `address add ${HAS.six}/64 dev eth0 nodad`,
      'link add eth1 type veth peer name far1',
      'link set eth1 up',
      `address add ${HAS.withoutCarrier}/24 dev eth1`,
      // In the place of the interface that leads nowhere: not each kernel on which this runs has its kind.
      `link add ${INTERFACE} type veth peer name nowhere0`,
      'link set nowhere0 up',
    ]);
    const set = 'ip link set far0 up && ip address add 192.0.2.2/24 dev far0';
    assert.equal(runInFar('sh', '-c', set).status, 0);
    for (const family of ['ipv4', 'ipv6']) writeFileSync(`/proc/sys/net/${family}/ip_nonlocal_bind`, '2');
    usual = network();
    lendAddresses(OWN);
  });
  after(() => {
    far.kill('SIGKILL');
  });

  test('has those addresses more that it had on no interface, up or not', () => {
    const all = shown('-oneline', 'address', 'show', 'dev', INTERFACE).match(/\S+\/(32|128)\b/g);
    assert.deepEqual(all, [`${MOVED.four}/32`]);
    assert.deepEqual(missingAddresses([HAS.withoutCarrier, '192.0.2.77']), ['192.0.2.77']);
  });

  test('does not say for others that they are its own', () => {
    assert.deepEqual(python(ASK, [MOVED.four, HAS.four], inFar), [HAS.four]);
    assert.doesNotMatch(shown('-4', 'route', 'show', 'table', 'local'), new RegExp(INTERFACE));
    assert.doesNotMatch(shown('-6', 'route', 'show', 'table', 'local'), /2001:db8::9/);
    // Another machine has it: the way there is the network, and not this machine.
    assert.match(shown('route', 'get', MOVED.four), / dev eth0 /);
    assert.match(shown('-6', 'route', 'get', MOVED.six), / dev eth0 /);
  });

  test('lets connections be made from all of them, to whom there is a route and to whom there is none', () => {
    const four = [HAS.four, HAS.withoutCarrier, MOVED.four].flatMap((own) =>
      PEERS.four.map((peer) => `${own} ${peer}`),
    );
    const six = [HAS.six, '2001:db8::9'].flatMap((own) => PEERS.six.map((peer) => `${own} ${peer}`));
    assert.deepEqual(python(CONNECT, [...four, ...six]), [...four, ...six]);
  });

  test('has no way for others that choose no address, but from one that they would have had', () => {
    const [four, six] = python(CONNECT, [`- ${PEERS.four[0]}`, `- ${PEERS.six[0]}`]);
    assert.equal(four, 'ENETUNREACH');
    // IPv6 chooses the address first, and asks for a route from there: an address that the machine has.
    assert.match(six ?? '', new RegExp(`^(ENETUNREACH|from ${HAS.six})$`));
  });

  test('is as it was afterwards', () => {
    endLending(OWN);
    assert.deepEqual(
      network(),
      usual.map((one) => one.replaceAll(/^.*(otherworld0).*\n/gm, '')),
    );
    assert.doesNotMatch(usual.join(''), new RegExp(`${LENT_TABLE}|${LAST_METRIC}`));
    assert.throws(() => endLending([MOVED.four]), /^Error: ip: /);
  });
});
