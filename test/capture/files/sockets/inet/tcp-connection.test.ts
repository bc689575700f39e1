// TCP connections in a kernel made by hand: what is in their queues, and what does not come back.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { CaptureContext } from '../../../../../src/capture/files/context.ts';
import { FileRefusal } from '../../../../../src/capture/files/refusal.ts';
import {
  nextTimestamp,
  tcpConnection,
} from '../../../../../src/capture/files/sockets/inet/tcp-connection.ts';
import {
  contentBetween,
  type Segment,
  sentTo,
} from '../../../../../src/capture/files/sockets/inet/tcp-queue.ts';
import { skBuff } from '../../../../../src/linux/skbuff.ts';
import { sockStruct, tcpState } from '../../../../../src/linux/sock.ts';
import { tcpSock } from '../../../../../src/linux/tcp.ts';
import type { TcpConnection } from '../../../../../src/model/socket.ts';
import { adviceFor } from '../../../../../src/report/advice.ts';
import { PAGE_SIZE } from '../../../../../src/system/page.ts';
import { releases } from '../../../../vmcore/fixtures.ts';
import { MadeKernel } from '../../../../vmcore/made-kernel.ts';

/** In the direct map. */
const OBJECT = 0xffff_8880_0000_0000n;
const CLOCKS = { monotonic: 5_000_000_000n, realtime: 0n, boottime: 0n, tai: 0n };

const SPIN_LOCK = 'sk_lock.slock.rlock.raw_lock.val';

function reasonOf(step: () => unknown): string {
  try {
    step();
  } catch (error) {
    if (error instanceof FileRefusal) return error.reason;
    throw error;
  }
  assert.fail('it is not refused');
}

/** A segment of one run that lies where its number says. */
function segment(start: number, bytes: number, fin = 0): Segment {
  const end = (start + bytes + fin) >>> 0;
  return { start, end, bytes, data: (skip) => [{ physical: 1000 + start + skip, length: bytes - skip }] };
}

suite('what lies in a queue of a connection', () => {
  const content = (segments: readonly Segment[], from: number, to: number, exact = false) =>
    contentBetween(segments, from, to, 'the queue', exact);

  test('is what no one has taken yet, each byte once', () => {
    const segments = [segment(100, 50), segment(140, 20), segment(160, 5)];
    assert.deepEqual(content(segments, 120, 165), {
      data: [
        { physical: 1120, length: 30 },
        { physical: 1150, length: 10 },
        { physical: 1160, length: 5 },
      ],
      bytes: 45,
      hasFin: false,
    });
  });

  test('may end with the end of the stream, which is no byte', () => {
    const { bytes, hasFin, data } = content([segment(10, 5), segment(15, 0, 1)], 10, 16);
    assert.deepEqual([bytes, hasFin, data.length], [5, true, 1]);
    assert.deepEqual(content([segment(10, 5, 1)], 15, 16), { data: [], bytes: 0, hasFin: true });
    assert.deepEqual(content([], 7, 7), { data: [], bytes: 0, hasFin: false });
  });

  test('goes on behind the highest number', () => {
    const { bytes, data } = content([segment(0xffff_fff0, 20), segment(4, 6)], 0xffff_fff8, 10);
    assert.deepEqual([bytes, data.map(({ length }) => length)], [18, [12, 6]]);
  });

  test('is refused if it is not what the numbers say', () => {
    const reason = (...given: Parameters<typeof content>) => reasonOf(() => content(...given));
    assert.match(reason([segment(10, 5)], 9, 15), /has a hole or bytes twice$/);
    assert.match(reason([segment(10, 5), segment(16, 5)], 10, 21), /has a hole/);
    assert.match(reason([segment(10, 5), segment(14, 5)], 10, 19, true), /bytes twice/);
    assert.match(reason([segment(10, 5)], 10, 16), /the queue ends 1 bytes before it should$/);
    assert.match(reason([segment(10, 5, 2)], 10, 17), /another length than it counts$/);
    assert.match(reason([segment(10, 5, 1), segment(16, 5)], 10, 21), /goes on behind its end$/);
    assert.match(reason([segment(10, 5)], 17, 17), /were taken already$/);
    assert.match(adviceFor(reason([], 1, 2)) ?? '', /memory that describes it is damaged/);
  });
});

test('a time stamp is never before one that the peer may have seen, and is even', () => {
  const stamp = (monotonic: bigint, tcp_clock_cache: bigint, tcp_wstamp_ns: bigint, tsoffset = 0) =>
    nextTimestamp({ monotonic }, { tcp_clock_cache, tcp_wstamp_ns, tsoffset });
  assert.equal(stamp(7_000_000n, 1n, 1n), 8);
  assert.equal(stamp(7_000_000n, 9_999_999n, 1n), 10);
  assert.equal(stamp(7_000_000n, 1n, 20_000_001n), 22);
  assert.equal(stamp(7_000_000n, 1n, 1n, 0xffff_fffe), 6);
  const days = 30n * 86_400_000_000_000n;
  for (const damaged of [() => stamp(7_000_000n, days, 1n), () => stamp(7_000_000n, 1n, days)])
    assert.equal(reasonOf(damaged), 'has a TCP connection that is damaged: its clock is ahead of the time');
});

interface MadeBuffer {
  readonly seq: number;
  readonly bytes: number;
  readonly fin?: boolean;
}

for (const release of releases) {
  suite(`a TCP connection of ${release}`, () => {
    class Made {
      readonly kernel = new MadeKernel(release);
      readonly sock: bigint;

      constructor(state: number = tcpState.established) {
        const { kernel } = this;
        this.sock = kernel.allocate('tcp_sock');
        const socket = kernel.allocate('socket');
        kernel.set('socket', socket, 'state', 3);
        kernel.set('sock', this.sock, 'sk_socket', socket);
        for (const queue of ['sk_receive_queue', 'sk_write_queue']) {
          const head = kernel.memberAddress('sock', this.sock, queue);
          kernel.set('sk_buff_head', head, 'next', head);
        }
        kernel.set('sock', this.sock, '__sk_common.skc_state', state);
        const numbers = { copied_seq: 1000, rcv_nxt: 1000, rcv_wup: 1000, rcv_wnd: 500, snd_wl1: 900 };
        for (const [member, value] of Object.entries(numbers)) this.tcp(member, value);
        for (const member of ['snd_una', 'snd_nxt', 'write_seq', 'snd_up']) this.tcp(member, 4000);
        this.tcp('snd_wnd', 700);
        this.tcp('max_window', 800);
        this.tcp('rx_opt.mss_clamp', 1460);
      }

      tcp(member: string, value: bigint | number): void {
        this.kernel.set('tcp_sock', this.sock, member, value);
      }

      sk(member: string, value: bigint | number): void {
        this.kernel.set('sock', this.sock, member, value);
      }

      /** A buffer whose first bytes are in its linear part, and the others in two page fragments. */
      buffer({ seq, bytes, fin = false }: MadeBuffer): bigint {
        const { kernel } = this;
        const skb = kernel.allocate('sk_buff');
        const head = kernel.allocate('skb_shared_info');
        const paged = Math.max(bytes - 10, 0);
        const set = (member: string, value: bigint | number) => kernel.set('sk_buff', skb, member, value);
        set('len', bytes);
        set('data_len', paged);
        set('head', head - 64n);
        set('data', head - 64n);
        set('end', 64);
        const parts = paged === 0 ? [] : [Math.ceil(paged / 2), Math.floor(paged / 2)];
        kernel.set('skb_shared_info', head, 'nr_frags', parts.length);
        const [page, length, offset] = kernel.hasMember('skb_frag', 'netmem')
          ? ['netmem', 'len', 'offset']
          : ['bv_page', 'bv_len', 'bv_offset'];
        for (const [i, part] of parts.entries()) {
          kernel.set('skb_shared_info', head, `frags[${i}].${page}`, kernel.pfnToPage(kernel.frame()));
          kernel.set('skb_shared_info', head, `frags[${i}].${length}`, part);
          kernel.set('skb_shared_info', head, `frags[${i}].${offset}`, 16 * i);
        }
        const control = Buffer.alloc(8);
        control.writeUInt32LE(seq, 0);
        control.writeUInt32LE((seq + bytes + (fin ? 1 : 0)) >>> 0, 4);
        kernel.write(kernel.memberAddress('sk_buff', skb, 'cb'), control);
        return skb;
      }

      queue(member: 'sk_receive_queue' | 'sk_write_queue', ...buffers: readonly MadeBuffer[]): bigint[] {
        const { kernel } = this;
        const head = kernel.memberAddress('sock', this.sock, member);
        const skbs = buffers.map((buffer) => this.buffer(buffer));
        kernel.set('sk_buff_head', head, 'next', skbs[0] ?? head);
        kernel.set('sk_buff_head', head, 'qlen', skbs.length);
        for (const [i, skb] of skbs.entries()) kernel.set('sk_buff', skb, 'next', skbs[i + 1] ?? head);
        return skbs;
      }

      /** A tree that leans to the right. */
      sent(...buffers: readonly MadeBuffer[]): void {
        const { kernel } = this;
        const nodes = buffers.map((buffer) => kernel.memberAddress('sk_buff', this.buffer(buffer), 'rbnode'));
        this.sk('tcp_rtx_queue', nodes[0] ?? 0n);
        for (const [i, node] of nodes.entries()) {
          kernel.set('rb_node', node, '__rb_parent_color', (nodes[i - 1] ?? 0n) | 1n);
          kernel.set('rb_node', node, 'rb_right', nodes[i + 1] ?? 0n);
        }
      }

      captured(): TcpConnection {
        const { kernel } = this;
        const list = { tasks: [], lost: [], damage: [], isComplete: true };
        const context = new CaptureContext(kernel, CLOCKS, [], list);
        const sock = kernel.bind(sockStruct).at(this.sock);
        return tcpConnection(context, sock, kernel.bind(tcpSock).at(this.sock), '10.0.2.2:5432');
      }
    }

    test('that is idle has its numbers, its windows and nothing in its queues', () => {
      const made = new Made();
      const none = { data: [], bytes: 0 };
      assert.deepEqual(made.captured(), {
        ...{ receivedTo: 1000, unread: none, writtenTo: 4000, unacknowledged: none },
        ...{
          unsentBytes: 0,
          mssClamp: 1460,
          hasSelectiveAcks: false,
          scale: undefined,
          timestamp: undefined,
        },
        window: { sendUpdate: 900, send: 700, largest: 800, receive: 500, receiveUpdate: 1000 },
      });
    });

    test('has the options that both ends agreed on', () => {
      const made = new Made();
      for (const [member, value] of Object.entries({ tstamp_ok: 1, sack_ok: 1 }))
        setBits(made, member, value);
      made.tcp('tsoffset', 1000);
      const { hasSelectiveAcks, timestamp } = made.captured();
      assert.deepEqual([hasSelectiveAcks, timestamp], [true, 6002]);
    });

    test('has what was received and not read, from the middle of a buffer on, in its linear part and in pages', () => {
      const made = new Made();
      made.tcp('rcv_nxt', 1130);
      made.tcp('copied_seq', 1005);
      made.queue('sk_receive_queue', { seq: 1000, bytes: 60 }, { seq: 1060, bytes: 70 });
      const { unread } = made.captured();
      assert.equal(unread.bytes, 125);
      assert.deepEqual(
        unread.data.map(({ length }) => length),
        [5, 25, 25, 10, 30, 30],
      );
      assert.equal((unread.data[2]?.physical ?? 0) % PAGE_SIZE, 16);
    });

    test('has what was sent and what was not, in the order in which it was written', () => {
      const made = new Made();
      made.sent({ seq: 3990, bytes: 30 }, { seq: 4020, bytes: 8 });
      made.queue('sk_write_queue', { seq: 4028, bytes: 5 }, { seq: 4033, bytes: 0 });
      made.tcp('snd_nxt', 4028);
      made.tcp('write_seq', 4033);
      const { unacknowledged, unsentBytes } = made.captured();
      assert.deepEqual([unacknowledged.bytes, unsentBytes], [33, 5]);
      assert.deepEqual(
        unacknowledged.data.map(({ length }) => length),
        [10, 10, 8, 5],
      );
    });

    test('has the first buffer that is to be sent as one that was sent, while somebody is at it', () => {
      const made = new Made();
      made.sent({ seq: 4000, bytes: 8 });
      made.queue('sk_write_queue', { seq: 4008, bytes: 5 }, { seq: 4013, bytes: 7 });
      made.tcp('snd_nxt', 4008);
      made.tcp('write_seq', 4020);
      const { kernel } = made;
      const numbers = (): number[] => {
        const { unacknowledged, unsentBytes, writtenTo } = made.captured();
        const sock = kernel.bind(sockStruct).at(made.sock);
        const sent = sentTo(kernel, sock, kernel.bind(tcpSock).at(made.sock));
        return [unacknowledged.bytes, unsentBytes, writtenTo, sent];
      };
      assert.deepEqual(numbers(), [20, 12, 4020, 4008]);
      made.sk(SPIN_LOCK, 1);
      assert.deepEqual(numbers(), [20, 7, 4020, 4013]);
      made.queue('sk_write_queue');
      made.tcp('write_seq', 4008);
      assert.deepEqual(numbers(), [8, 0, 4008, 4008]);
    });

    test('with a piece twice is refused while somebody is at it: its pieces were being moved up', () => {
      const made = new Made();
      const [buffer = 0n] = made.queue('sk_write_queue', { seq: 4000, bytes: 30 });
      made.tcp('write_seq', 4030);
      const shared = kernelShared(made, buffer);
      const [page, offset] = made.kernel.hasMember('skb_frag', 'netmem')
        ? ['netmem', 'offset']
        : ['bv_page', 'bv_offset'];
      for (const member of [page, offset]) {
        const size = member === page ? 'u64' : 'u32';
        const from = made.kernel.memberAddress('skb_shared_info', shared, `frags[1].${member}`);
        const value = size === 'u64' ? made.kernel.memory.u64(from) : made.kernel.memory.u32(from);
        made.kernel.set('skb_shared_info', shared, `frags[0].${member}`, value);
      }
      assert.equal(made.captured().unsentBytes, 30, 'a file may have been sent twice');
      made.sk(SPIN_LOCK, 1);
      assert.match(
        reasonOf(() => made.captured()),
        /^has a TCP connection that was being worked on when the kernel died: a buffer has a piece twice$/,
      );
    });

    test('with what does not fit is refused for the moment while somebody is at it, not as damaged', () => {
      for (const [member, problem] of [
        ['snd_wl1', 'its windows are impossible'],
        ['rcv_nxt', 'what was received ends'],
      ] as const) {
        const made = new Made();
        made.tcp(member, 1501);
        assert.match(
          reasonOf(() => made.captured()),
          new RegExp(`is damaged: ${problem}`),
        );
        made.sk(SPIN_LOCK, 1);
        assert.match(
          reasonOf(() => made.captured()),
          new RegExp(`worked on when the kernel died: ${problem}`),
        );
        const head = made.kernel.memberAddress('sock', made.sock, 'sk_receive_queue');
        made.kernel.set('sk_buff_head', head, 'qlen', 3);
        assert.match(
          reasonOf(() => made.captured()),
          /worked on when the kernel died: socket queue at \S+ has 0 of its 3 buffers$/,
        );
      }
    });

    test('whose peer has ended has its end behind what was received, read or not', () => {
      const made = new Made(tcpState.closeWait);
      made.tcp('rcv_nxt', 1006);
      made.queue('sk_receive_queue', { seq: 1000, bytes: 5, fin: true });
      assert.deepEqual([made.captured().unread.bytes, made.captured().receivedTo], [5, 1006]);
      made.queue('sk_receive_queue');
      made.tcp('copied_seq', 1006);
      assert.match(
        reasonOf(() => made.captured()),
        /^has a TCP connection that is damaged: the end that it has received does not fit its state$/,
      );
      made.sk('__sk_common.skc_flags', 1n << BigInt(made.kernel.enumerator('SOCK_DONE')));
      assert.equal(made.captured().unread.bytes, 0);
    });

    test('that it has ended has its end behind what was written, sent or not', () => {
      const unsent = new Made(tcpState.finWait1);
      unsent.queue('sk_write_queue', { seq: 4000, bytes: 7, fin: true });
      unsent.tcp('write_seq', 4008);
      const { writtenTo, unacknowledged, unsentBytes } = unsent.captured();
      assert.deepEqual([writtenTo, unacknowledged.bytes, unsentBytes], [4008, 7, 7]);
      const sent = new Made(tcpState.closing);
      sent.sent({ seq: 4000, bytes: 0, fin: true });
      sent.tcp('snd_nxt', 4001);
      sent.tcp('write_seq', 4001);
      sent.sk('__sk_common.skc_flags', 1n << BigInt(sent.kernel.enumerator('SOCK_DONE')));
      assert.deepEqual([sent.captured().writtenTo, sent.captured().unacknowledged.bytes], [4001, 0]);
      const acknowledged = new Made(tcpState.finWait2);
      assert.equal(acknowledged.captured().writtenTo, 4000);
      sent.sk('__sk_common.skc_state', tcpState.established);
      assert.match(
        reasonOf(() => sent.captured()),
        /does not fit its state$/,
      );
    });

    test('is damaged where what it would be lost for cannot be', () => {
      const refused = (
        values: Readonly<Record<string, bigint | number>>,
        structure: 'sk' | 'tcp' = 'tcp',
      ) => {
        const made = new Made();
        for (const [member, value] of Object.entries(values)) made[structure](member, value);
        return reasonOf(() => made.captured());
      };
      const lock = 'sk_lock.slock.rlock.raw_lock.val';
      for (const value of [2, 0x201, 0x10001, 0x4000_0001])
        assert.match(refused({ [lock]: value }, 'sk'), /damaged: its lock is impossible$/);
      assert.match(refused({ 'sk_lock.owned': 0x4000_0001 }, 'sk'), /damaged: its lock/);
      assert.match(refused({ 'sk_backlog.tail': 64n }, 'sk'), /damaged: its lock/);
      assert.match(refused({ 'sk_backlog.tail': OBJECT + 4n }, 'sk'), /damaged: its lock/);
      const keys = ['md5sig_info', 'inet_conn.icsk_ulp_ops', 'inet_conn.icsk_accept_queue.fastopenq.ctx'];
      for (const member of [...keys, 'fastopen_rsk', 'fastopen_req'])
        assert.match(refused({ [member]: 64n }), /damaged: a pointer of it leads nowhere$/);
      for (const urgent of [0x41, 0x241, 0x300, 0x8141])
        assert.match(refused({ urg_data: urgent }), /damaged: its urgent data is impossible$/);
      assert.match(refused({ snd_up: 4001 }), /damaged: its urgent data/);
      assert.match(refused({ urg_data: 0x141, rcv_nxt: 1001 }), /damaged: what was received/);
      assert.match(refused({ urg_data: 0x141, snd_nxt: 4001, write_seq: 4001 }), /damaged: what was sent/);
      assert.match(refused({ urg_data: 0x141, snd_wnd: 801 }), /damaged: its windows/);
    });

    test('that was being worked on still has its numbers in order, or is damaged', () => {
      const orders = [{ copied_seq: 1001 }, { rcv_wup: 1001 }, { snd_nxt: 3999 }, { snd_nxt: 4001 }];
      for (const values of orders) {
        const made = new Made();
        made.sk('sk_lock.owned', 1);
        for (const [member, value] of Object.entries(values)) made.tcp(member, value);
        assert.match(
          reasonOf(() => made.captured()),
          /damaged: its numbers are out of order$/,
        );
      }
    });

    test('is refused by name in the middle of something, and for what cannot be carried', () => {
      const refused = (structure: 'sk' | 'tcp', member: string, value: bigint | number): string => {
        const made = new Made();
        made[structure](member, value);
        return reasonOf(() => made.captured()).replace(/^has a TCP connection /, '');
      };
      const worked = 'that was being worked on when the kernel died';
      assert.equal(refused('sk', 'sk_lock.owned', 1), `${worked}: which call had its lock cannot be told`);
      assert.equal(
        refused('sk', 'sk_backlog.tail', OBJECT),
        'that is damaged: it has packets that nobody was to look at',
      );
      assert.match(refused('sk', 'sk_user_data', 64n), /^that something in the kernel uses/);
      assert.match(refused('sk', 'sk_zckey', 3), /MSG_ZEROCOPY/);
      assert.match(refused('tcp', 'urg_data', 0x141), /urgent data/);
      assert.match(refused('tcp', 'fastopen_rsk', OBJECT), /TCP_FASTOPEN/);
      assert.match(refused('tcp', 'md5sig_info', OBJECT), /^that signs its segments/);
      assert.match(refused('tcp', 'inet_conn.icsk_ulp_ops', OBJECT), /TCP_ULP/);
      assert.match(refused('tcp', 'snd_wnd', 801), /windows are impossible$/);
      assert.match(refused('tcp', 'rcv_wup', 1001), /windows are impossible$/);
      assert.match(refused('tcp', 'snd_wl1', 1501), /windows are impossible$/);
      assert.match(refused('tcp', 'rcv_nxt', 1001), /what was received ends 1 bytes before/);
      assert.match(refused('tcp', 'snd_nxt', 4001), /what was sent ends 1 bytes before/);
      assert.match(adviceFor(`has a TCP connection ${worked}`) ?? '', /^a matter of the moment/);
    });

    function kernelShared({ kernel }: Made, buffer: bigint): bigint {
      const { head, end } = kernel.bind(skBuff).at(buffer);
      return head + BigInt(end);
    }

    /** Bit fields: the whole word, for those of one bit at least. */
    function setBits(made: Made, member: string, value: number): void {
      const { kernel, sock } = made;
      const layout = kernel.layouts.member('tcp_sock', `rx_opt.${member}`) ?? assert.fail(member);
      const address = sock + BigInt(layout.offsetBytes);
      const bits = kernel.memory.u16(address) | (value << (layout.bits?.offset ?? 0));
      const word = Buffer.alloc(2);
      word.writeUInt16LE(bits);
      kernel.write(address, word);
    }
  });
}
