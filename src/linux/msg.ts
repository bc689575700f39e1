import { PAGE_SIZE } from '../system/page.ts';
import { ContainerError, readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, s64, struct, u16, u32, ulongNumber, type ViewOf } from '../vmcore/view.ts';
import { settled } from './container.ts';
import { type IpcObject, ipcTable, knownPids } from './ipc.ts';
import { listForEachEntry } from './list.ts';
import { requirePhysical } from './mm.ts';
import { taskAt } from './sched.ts';
import { pidOfRole } from './signal.ts';

/** `struct msg_queue` (ipc/msg.c): a System V message queue. */
export const msgQueue = struct('msg_queue', {
  q_perm: addressOf('q_perm'),
  id: s32.at('q_perm.id'),
  /** IPC_PRIVATE (0) of one that has none. */
  key: s32.at('q_perm.key'),
  uid: u32.at('q_perm.uid'),
  gid: u32.at('q_perm.gid'),
  cuid: u32.at('q_perm.cuid'),
  cgid: u32.at('q_perm.cgid'),
  mode: u16.at('q_perm.mode'),
  lock: s32.at('q_perm.lock.rlock.raw_lock.val.counter'),
  /** Bytes and messages in it, and how many bytes there may be. */
  q_cbytes: ulongNumber,
  q_qnum: ulongNumber,
  q_qbytes: ulongNumber,
  /** The `struct pid` of who sent and who received last. */
  q_lspid: pointer,
  q_lrpid: pointer,
  q_messages: addressOf('q_messages'),
  q_receivers: addressOf('q_receivers'),
  q_senders: addressOf('q_senders'),
});

export type MsgQueue = ViewOf<typeof msgQueue>;

/** `struct msg_msg` (include/linux/msg.h): a message; its text follows. */
export const msgMsg = struct('msg_msg', {
  m_list: addressOf('m_list'),
  m_type: s64,
  /** Bytes of the text. */
  m_ts: ulongNumber,
  next: pointer,
});

/** `struct msg_msgseg` (ipc/msgutil.c): what did not fit into a page with what came before. */
export const msgMsgseg = struct('msg_msgseg', { next: pointer });

/** Threads that sleep in msgrcv and msgsnd. */
export const msgReceiver = struct('msg_receiver', { list: addressOf('r_list'), task: pointer.at('r_tsk') });
export const msgSender = struct('msg_sender', { list: addressOf('list'), task: pointer.at('tsk') });

/** A message as the kernel has it. */
export interface QueuedMessage {
  readonly type: bigint;
  readonly bytes: number;
  /** Where its text is, piece by piece. */
  readonly text: readonly { readonly physical: number; readonly length: number }[];
}

/** More messages than fit into memory. */
const MAX_MESSAGES = 1 << 24;

function pieceOf(kernel: Kernel, address: bigint, length: number): QueuedMessage['text'][number] {
  // Direct-mapped, like all that kmalloc gives.
  const physical = kernel.memory.translate(address);
  requirePhysical(kernel, physical, length, 'msg_msg');
  return { physical, length };
}

function textOf(
  kernel: Kernel,
  { address, m_ts: bytes, next: first }: ViewOf<typeof msgMsg>,
): QueuedMessage['text'] {
  const Segment = kernel.bind(msgMsgseg);
  const text: QueuedMessage['text'][number][] = [];
  let [at, head, next, left] = [address, kernel.bind(msgMsg).size, first, bytes];
  for (;;) {
    const length = Math.min(left, PAGE_SIZE - head);
    if (length > 0) text.push(pieceOf(kernel, at + BigInt(head), length));
    left -= length;
    if ((left === 0) !== (next === 0n))
      throw new ContainerError('msg_msg', address, `has more or fewer pieces than its ${bytes} bytes take`);
    if (left === 0) return text;
    [at, head] = [next, Segment.size];
    next = Segment.at(at).next;
  }
}

/** The messages in a queue, in order. Throws a ContainerError if they are not those that the queue counts. */
export function messagesOf(kernel: Kernel, { address }: MsgQueue): QueuedMessage[] {
  return settled(kernel, () => readMessages(kernel, kernel.bind(msgQueue).at(address)));
}

function readMessages(kernel: Kernel, queue: MsgQueue): QueuedMessage[] {
  const { address, q_messages, q_qnum: count, q_cbytes: counted } = queue;
  const messages: QueuedMessage[] = [];
  const differs = () =>
    new ContainerError('msg_queue', address, `counts ${count} messages of ${counted} bytes, and has others`);
  let left = counted;
  for (const message of listForEachEntry(kernel, q_messages, kernel.bind(msgMsg), 'm_list', MAX_MESSAGES)) {
    const { m_type: type, m_ts: bytes } = message;
    left -= bytes;
    if (left < 0 || messages.length === count) throw differs();
    messages.push({ type, bytes, text: textOf(kernel, message) });
  }
  if (left !== 0 || messages.length !== count) throw differs();
  return messages;
}

/** Tasks that sleep in msgrcv(2) on a queue, and those in msgsnd(2). */
export function messageSleepers(
  kernel: Kernel,
  { q_receivers, q_senders }: MsgQueue,
): { readonly receivers: bigint[]; readonly senders: bigint[] } {
  const receivers = [...listForEachEntry(kernel, q_receivers, kernel.bind(msgReceiver), 'list')];
  const senders = [...listForEachEntry(kernel, q_senders, kernel.bind(msgSender), 'list')];
  return { receivers: receivers.map(({ task }) => task), senders: senders.map(({ task }) => task) };
}

/** All queues of the initial IPC namespace, and why not all of them are there. */
export function messageQueues(kernel: Kernel): {
  readonly objects: readonly MsgQueue[];
  readonly problems: readonly string[];
} {
  const Queue = kernel.bind(msgQueue);
  return ipcTable(kernel, 1, 'System V message queues', (_, entry) => Queue.containerOf(entry, 'q_perm'));
}

/** `task_tgid` of a task: the `struct pid` of its process. */
export function processPid(kernel: Kernel, task: bigint): bigint {
  return pidOfRole(kernel, taskAt(kernel, task).signal, 'PIDTYPE_TGID');
}

/**
 * A queue as one of the objects that outlive their users; who waits is missing if that cannot be read. Throws
 * a VmcoreError.
 */
export function messageQueueObject(kernel: Kernel, queue: MsgQueue): IpcObject {
  const { id, uid, cuid, q_lspid, q_lrpid } = queue;
  const sleepers = readable(() => {
    const { receivers, senders } = messageSleepers(kernel, queue);
    return [...receivers, ...senders].map((task) => processPid(kernel, task));
  });
  const users = knownPids([q_lspid, q_lrpid, ...(sleepers ?? [])]);
  return { kind: 'System V message queue', name: String(id), uids: [uid, cuid], users };
}
