// How much of a file sendfile(2) has given to a TCP socket, on a kernel stack that is made by hand.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type SendfileArguments, sentOnStack } from '../../../src/capture/calls/sendfile-count.ts';
import type { KernelStack, StackFrame } from '../../../src/linux/readers/kernel-stack.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';

const OUT = 0xffff_8880_0123_4500n;
const SLOTS = 32;
const FRAME = 0x400n;

/** Functions on a stack, the innermost first: `name` or `name>callee`. */
function stackOf(low: bigint, names: readonly string[]): KernelStack {
  const frames = names.map((name, i): StackFrame => {
    const [own, calls] = name.split('>');
    const sp = low + FRAME * BigInt(i);
    return { ip: 0n, sp, isInterrupted: false, function: own, calls };
  });
  return { frames, end: 'user', why: undefined };
}

const OUTER = [
  'splice_direct_to_actor>indirect',
  'do_splice_direct>splice_direct_to_actor',
  'do_sendfile>do_splice_direct',
  'entry',
];
const ACTOR = ['splice_to_socket>sock_sendmsg', 'direct_splice_actor>indirect', ...OUTER];
const inTcp = (...inner: string[]): string[] => [...inner, 'inet_sendmsg', 'sock_sendmsg', ...ACTOR];
const WAITS = inTcp(
  'sk_stream_wait_memory',
  'tcp_sendmsg_locked>sk_stream_wait_memory',
  'tcp_sendmsg>tcp_sendmsg_locked',
);
const COPIES = inTcp('tcp_sendmsg_locked>skb_splice_from_iter', 'tcp_sendmsg>tcp_sendmsg_locked');

for (const release of releases) {
  suite(`sendfile to a socket of ${release}`, () => {
    class Made {
      readonly kernel = new MadeKernel(release);
      /** Of four pages, one behind the other. */
      readonly low = [1, 2, 3, 4].map(() => this.kernel.allocate('page'))[0] ?? 0n;
      readonly task: { splice_pipe: bigint };
      readonly given: SendfileArguments = { out: OUT, start: 1000n, count: 100_000n };
      readonly #pipe = this.kernel.allocate('pipe_inode_info');
      readonly #buffers = this.kernel.allocate('pipe_inode_info');
      #pages = 0n;

      constructor() {
        this.task = { splice_pipe: this.#pipe };
        for (const [name, value] of Object.entries({
          ring_size: SLOTS,
          max_usage: SLOTS,
          bufs: this.#buffers,
        }))
          this.kernel.set('pipe_inode_info', this.#pipe, name, value);
      }

      /** What the caller of the function that has this stack keeps count of. */
      round(names: readonly string[], earlier: number, bytes: number, more: object = {}): void {
        const at = names.findIndex((name) => name.startsWith('splice_direct_to_actor')) + 1;
        const desc = this.low + FRAME * BigInt(at) + 0x40n;
        const opos = this.low + FRAME * BigInt(at + 1) + 0x20n;
        this.beginning(opos - 8n, 1000n);
        const values = { len: 100_000, total_len: bytes, 'u.file': OUT, pos: 1000 + earlier, opos, ...more };
        for (const [name, value] of Object.entries(values)) this.kernel.set('splice_desc', desc, name, value);
      }

      /** Where the call began, as the kernel has it. */
      beginning(at: bigint, value: bigint): void {
        const bytes = Buffer.alloc(8);
        bytes.writeBigUInt64LE(value);
        this.kernel.write(at, bytes);
      }

      /** Puts pages into the pipe, and lists those of which so many are left for the socket. */
      pages(lengths: readonly number[], names: readonly string[], left: number, offset: number): void {
        const list = this.low + FRAME * BigInt(names.indexOf(ACTOR[0] ?? '')) + 0x80n;
        const passed = Math.min(lengths.length, 16) - left;
        const slot = this.kernel.sizeOf('pipe_buffer');
        this.#pages += 0x1000n;
        for (const [i, length] of lengths.entries()) {
          const page = 0xffff_ea00_0000_0000n + this.#pages + BigInt(i) * 64n;
          const buffer = { page, offset: i, len: length };
          for (const [name, value] of Object.entries(buffer))
            this.kernel.set('pipe_buffer', this.#buffers + BigInt(i * slot), name, value);
          if (i >= 16) continue;
          const entry = { bv_page: page, bv_offset: i, bv_len: length };
          for (const [name, value] of Object.entries(entry))
            this.kernel.set('bio_vec', list + BigInt(16 * i), name, value);
        }
        this.kernel.set('pipe_inode_info', this.#pipe, 'head', lengths.length);
        const rest = lengths.slice(passed, 16).reduce((sum, length) => sum + length, 0) - offset;
        this.iter(list - 0x60n, list + BigInt(16 * passed), left, offset, rest);
      }

      iter(at: bigint, list: bigint, left: number, offset: number, count: number): void {
        const kind = this.kernel.enumerator('ITER_BVEC');
        const values = {
          iter_type: kind,
          data_source: 1,
          bvec: list,
          nr_segs: left,
          iov_offset: offset,
          count,
        };
        for (const [name, value] of Object.entries(values)) this.kernel.set('iov_iter', at, name, value);
      }

      sent(names: readonly string[], given: Partial<SendfileArguments> = {}): number | undefined {
        return sentOnStack(this.kernel, this.task, stackOf(this.low, names), { ...this.given, ...given });
      }
    }

    test('is what earlier rounds have sent while the file is read', () => {
      for (const read of ['ext4:ext4_file_splice_read', 'filemap_splice_read', 'do_splice_read']) {
        const made = new Made();
        const names = ['folio_wait_bit_common', read, ...OUTER];
        made.round(names, 0, 100_000);
        assert.equal(made.sent(names), 0);
        made.round(names, 65_536, 65_536);
        assert.equal(made.sent(names), 65_536);
      }
    });

    test('is that, what has left the pipe, and what the socket has taken of the pages, while it waits', () => {
      const made = new Made();
      made.round(WAITS, 10_000, 5000);
      for (const [lengths, left, offset, sent] of [
        [[2000, 2000, 1000], 3, 0, 10_000],
        [[2000, 2000, 1000], 3, 1999, 11_999],
        [[2000, 2000, 1000], 2, 7, 12_007],
        [[2000, 2000, 1000], 0, 0, 15_000],
        [[500, 1000], 1, 1, 14_001],
      ] as const) {
        made.pages(lengths, WAITS, left, offset);
        assert.equal(made.sent(WAITS), sent, `${lengths}, ${left}, ${offset}`);
      }
    });

    test('is known if there are more pages than a socket is given at once', () => {
      const made = new Made();
      made.round(WAITS, 0, 20_000);
      made.pages(Array<number>(20).fill(1000), WAITS, 6, 1);
      assert.equal(made.sent(WAITS), 10_001);
    });

    test('is not known while the socket takes pages, nor on the way back from it', () => {
      for (const names of [
        COPIES,
        ['sock_sendmsg', ...ACTOR],
        ACTOR,
        ['splice_to_socket', ...ACTOR.slice(1)],
      ]) {
        const made = new Made();
        made.round(names, 0, 5000);
        made.pages([5000], names, 1, 0);
        assert.equal(made.sent(names), undefined, names[0]);
      }
    });

    test('is not known anywhere else', () => {
      for (const names of [
        ['file_accessed', ...OUTER],
        ['generic_splice_sendpage', 'direct_splice_actor>indirect', ...OUTER],
        ['generic_splice_sendpage', ...OUTER],
        ['do_sendfile>fdget', 'entry'],
      ]) {
        const made = new Made();
        made.round(names, 4096, 4096);
        assert.equal(made.sent(names), undefined, names[0]);
      }
    });

    test('is not known if what is counted is another call, or impossible', () => {
      const read = ['filemap_splice_read', ...OUTER];
      for (const more of [
        { 'u.file': OUT + 64n },
        { pos: 999 },
        { pos: 101_001 },
        { len: 99_999 },
        { opos: 0 },
      ]) {
        const made = new Made();
        made.round(read, 4096, 4096, more);
        assert.equal(
          made.sent(read),
          undefined,
          JSON.stringify(more, (_, value) => String(value)),
        );
      }
      const made = new Made();
      made.round(read, 4096, 4096);
      assert.equal(made.sent(read), 4096);
      assert.equal(made.sent(read, { start: 999n }), undefined, 'the program has changed its offset');
      made.round(WAITS, 0, 4999);
      made.pages([5000], WAITS, 1, 0);
      assert.equal(made.sent(WAITS), undefined, 'there is more in the pipe than was read');
      made.round(WAITS, 0, 5000);
      assert.equal(made.sent(WAITS), 0);
      made.pages([5000], WAITS, 1, 5001);
      assert.equal(made.sent(WAITS), undefined, 'more than a page was taken of it');
      made.pages([5000], WAITS, 1, 10);
      const other = made.low + FRAME * BigInt(WAITS.indexOf(ACTOR[0] ?? '')) + 0x80n;
      made.kernel.set('bio_vec', other, 'bv_page', 0xffff_ea00_0000_0040n);
      assert.equal(made.sent(WAITS), undefined, 'the pages are others');
    });
  });
}
