// System V message queues in a kernel made by hand: who they come back with, with which messages, and who
// cannot have them again.

import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { waitActivity } from '../../../src/capture/calls/served-wait.ts';
import type { CaptureContext } from '../../../src/capture/files/context.ts';
import { messageQueues, messageQueuesOfGroup } from '../../../src/capture/ipc/message-queues.ts';
import type { MessageQueue } from '../../../src/model/message-queue.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { MadeProcesses, makeList } from '../made-processes.ts';

const [SENDER, RECEIVER, OUTSIDER] = [100, 101, 102];
const ID = 7 * 32768 + 1;
const QUEUE = `the System V message queue ${ID}`;

for (const release of releases) {
  suite(`System V message queues of ${release}`, () => {
    class Made {
      readonly kernel = new MadeKernel(release);
      readonly processes = new MadeProcesses(this.kernel, [SENDER, RECEIVER, OUTSIDER]);
      readonly queue: bigint;
      readonly #messages: bigint[] = [];
      #bytes = 0;
      #context: CaptureContext | undefined;

      /** One queue without messages, which nobody has used. */
      constructor() {
        const { kernel } = this;
        const namespace = kernel.allocate('ipc_namespace');
        kernel.symbols.set('init_ipc_ns', namespace);
        this.queue = kernel.allocate('msg_queue');
        const entry = kernel.memberAddress('msg_queue', this.queue, 'q_perm');
        kernel.set('ipc_namespace', namespace, 'ids[1].ipcs_idr.idr_rt.xa_head', entry);
        const members = { id: ID, key: 0x8f57_0001, uid: 3, gid: 4, cuid: 1, cgid: 2, mode: 0o640 };
        for (const [name, value] of Object.entries(members)) this.set(`q_perm.${name}`, value);
        this.set('q_qbytes', 16384);
        for (const list of ['q_messages', 'q_receivers', 'q_senders']) this.list(list);
      }

      set(member: string, value: bigint | number): void {
        this.kernel.set('msg_queue', this.queue, member, value);
      }

      list(member: string, ...nodes: readonly bigint[]): void {
        makeList(this.kernel, this.kernel.memberAddress('msg_queue', this.queue, member), nodes);
      }

      /** Puts a message of so many bytes into the queue, each of them its type; its address. */
      send(type: bigint, bytes: number): bigint {
        const { kernel } = this;
        const first = kernel.physicalToVirtual(kernel.tables.allocate());
        kernel.set('msg_msg', first, 'm_type', type);
        kernel.set('msg_msg', first, 'm_ts', bytes);
        const text = Buffer.alloc(bytes, Number(type & 0xffn));
        let [at, link, head] = [
          first,
          kernel.memberAddress('msg_msg', first, 'next'),
          kernel.sizeOf('msg_msg'),
        ];
        for (let done = 0; ; ) {
          const part = text.subarray(done, done + PAGE_SIZE - head);
          kernel.write(at + BigInt(head), part);
          done += part.length;
          if (done === bytes) break;
          at = kernel.physicalToVirtual(kernel.tables.allocate());
          kernel.set('msg_msgseg', link, 'next', at);
          [link, head] = [at, kernel.sizeOf('msg_msgseg')];
        }
        this.#messages.push(kernel.memberAddress('msg_msg', first, 'm_list'));
        this.#bytes += bytes;
        this.list('q_messages', ...this.#messages);
        this.set('q_qnum', this.#messages.length);
        this.set('q_cbytes', this.#bytes);
        return first;
      }

      usedBy(member: 'q_lspid' | 'q_lrpid', pid: number): void {
        this.set(member, this.processes.pidOf(pid));
      }

      /** As if these tasks waited in msgrcv. */
      receivers(...tasks: readonly bigint[]): void {
        const nodes = tasks.map((task) => {
          const receiver = this.kernel.allocate('msg_receiver');
          this.kernel.set('msg_receiver', receiver, 'r_tsk', task);
          return this.kernel.memberAddress('msg_receiver', receiver, 'r_list');
        });
        this.list('q_receivers', ...nodes);
      }

      get context(): CaptureContext {
        if (this.#context !== undefined) return this.#context;
        this.#context = this.processes.context([SENDER, RECEIVER]);
        messageQueues.collect(this.#context);
        return this.#context;
      }

      group(...pids: readonly number[]): MessageQueue[] {
        const nothing = { namespace: 0n, files: [], pathFiles: [], shmids: new Set<number>(), paths: [] };
        return messageQueuesOfGroup({ context: this.context, pids: new Set(pids), ...nothing });
      }

      textOf({ text }: MessageQueue['messages'][number]): Buffer {
        const { physical: memory } = this.kernel;
        return Buffer.concat(text.map(({ physical, length }) => Buffer.from(memory.view(physical, length))));
      }
    }

    test('come back with who sent or received last, with all messages in their order', () => {
      const made = new Made();
      made.usedBy('q_lspid', SENDER);
      made.usedBy('q_lrpid', RECEIVER);
      const sizes = [0, 1, 4048, 4049, 10_000];
      for (const [i, bytes] of sizes.entries()) made.send(BigInt(9 - i), bytes);
      assert.deepEqual(made.context.edges, [{ pids: [SENDER, RECEIVER], why: 'a System V message queue' }]);
      const [queue = assert.fail()] = made.group(SENDER, RECEIVER);
      const { messages, ...rest } = queue;
      assert.deepEqual(rest, {
        ...{ id: ID, key: 0x8f57_0001, uid: 3, gid: 4, cuid: 1, cgid: 2, mode: 0o640, limitBytes: 16384 },
      });
      assert.deepEqual(
        messages.map((message) => [message.type, made.textOf(message)]),
        sizes.map((bytes, i) => [BigInt(9 - i), Buffer.alloc(bytes, 9 - i)]),
      );
      assert.deepEqual([...made.context.refusals], []);
      assert.deepEqual(made.context.notes.get(SENDER), [
        `${QUEUE} no longer tells who sent and received last, and when`,
      ]);
      assert.deepEqual(messageQueues.losses(made.context), []);
    });

    test('come back with a process of which any thread has used them, or waits', () => {
      const made = new Made();
      const thread = made.processes.addThread(SENDER, 110);
      made.receivers(thread, made.processes.taskOf(RECEIVER));
      assert.equal(made.group(SENDER, RECEIVER).length, 1);
      assert.match(
        made.context.notes.get(SENDER)?.join('\n') ?? '',
        /those who wait for .* in another order/,
      );
      const activityOf = (address: bigint) =>
        waitActivity(made.kernel, { task: { address }, cpu: undefined }, 'msgrcv', [], 'asleep');
      assert.equal(activityOf(thread), 'asleep');
      assert.equal(activityOf(made.processes.taskOf(SENDER)), 'running');
    });

    test('are lost if no protected process uses them', () => {
      const made = new Made();
      made.usedBy('q_lspid', OUTSIDER);
      assert.deepEqual(made.group(SENDER), []);
      assert.deepEqual(messageQueues.losses(made.context), [`${QUEUE} of user 3 went with the kernel`]);
    });

    test('tell of others who have used them, or wait', () => {
      const made = new Made();
      made.usedBy('q_lspid', SENDER);
      made.usedBy('q_lrpid', OUTSIDER);
      assert.match(
        made.context.notes.get(SENDER)?.join('\n') ?? '',
        /was used by PID 102 \(\) as well, which is not protected/,
      );
      const waiting = new Made();
      waiting.usedBy('q_lspid', SENDER);
      waiting.receivers(waiting.processes.taskOf(OUTSIDER));
      assert.deepEqual([...waiting.context.refusals], []);
      assert.match(
        waiting.context.notes.get(SENDER)?.join('\n') ?? '',
        /was used by PID 102 \(\) as well, which is not protected/,
      );
    });

    test('are refused if they were being changed, or the kernel contradicts itself about them', () => {
      const others = /counts \d messages of \d+ bytes, and has others/;
      const pieces = /has more or fewer pieces than its \d+ bytes take/;
      const cases: [RegExp, (made: Made, message: bigint) => void][] = [
        [/which was being changed$/, (made) => made.set('q_perm.lock.rlock.raw_lock.val.counter', 1)],
        [/cannot be read: /, (made) => made.set('q_receivers.next', 8)],
        [others, (made) => made.set('q_qnum', 1)],
        [others, (made) => made.set('q_qnum', 3)],
        [others, (made) => made.set('q_cbytes', 5999)],
        [others, (made) => made.set('q_cbytes', 6001)],
        [pieces, ({ kernel }, message) => kernel.set('msg_msg', message, 'next', 0)],
        [pieces, ({ kernel }, message) => kernel.set('msg_msg', message, 'm_ts', 3999)],
        [
          /is damaged: it has a message of type 0/,
          ({ kernel }, message) => kernel.set('msg_msg', message, 'm_type', 0),
        ],
      ];
      for (const [reason, damage] of cases) {
        const made = new Made();
        made.usedBy('q_lspid', SENDER);
        made.send(1n, 1000);
        damage(made, made.send(2n, 5000));
        assert.match(made.context.refusals.get(SENDER)?.join() ?? '', reason);
        assert.match(
          made.context.refusals.get(SENDER)?.join() ?? '',
          /^uses the System V message queue \d+, wh/,
        );
        assert.deepEqual(made.group(SENDER), []);
      }
    });
  });
}
