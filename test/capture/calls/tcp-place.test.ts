// Where in TCP a thread is, told from made stacks; guests have real ones (test/guest/kernel-stack.test.ts).
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { hasSocketLock, tcpCallersFrom, tcpPlace } from '../../../src/capture/calls/tcp-place.ts';
import { INDIRECT, type KernelStack, type StackFrame } from '../../../src/linux/readers/kernel-stack.ts';

const [TASK_STACK, IRQ_STACK] = [0x9000, 0x2000];

function spAt(names: readonly string[], i: number): bigint {
  const isOther = names.slice(0, i).some((name) => name.startsWith('!'));
  return BigInt((isOther ? IRQ_STACK : TASK_STACK) - 0x100 * i);
}

/**
 * A stack of calls, the outermost first: `tcp_sendmsg>tcp_push`; `!name` was interrupted, and what follows is
 * on another stack; `*name` was called through a pointer. The stack pointer is 0x100 lower in each.
 */
function stackOf(chain: string, end: KernelStack['end'] = 'user'): KernelStack {
  const names = chain.split('>');
  const frames = names.map((name, i): StackFrame => {
    const isInterrupted = name.startsWith('!');
    const next = names[i + 1];
    const called = next?.startsWith('*') ? INDIRECT : next?.replace('!', '');
    return {
      ...{ ip: 0n, sp: spAt(names, i), isInterrupted, function: name.replace(/[!*]/, '') },
      calls: isInterrupted ? undefined : called,
    };
  });
  return { frames: frames.reverse(), end, why: undefined };
}

suite('the place of a thread in a transfer through TCP', () => {
  const send = 'do_syscall_64>__sys_sendto>tcp_sendmsg>tcp_sendmsg_locked';
  const receive = 'do_syscall_64>__sys_recvfrom>inet_recvmsg>tcp_recvmsg>tcp_recvmsg_locked';

  test('is outside of it in other calls, and unknown where the stack does not tell', () => {
    assert.equal(tcpPlace(stackOf('do_syscall_64>__sys_setsockopt>tcp_setsockopt')), 'outside');
    assert.equal(tcpPlace(stackOf(`${send}>tcp_push>!tcp_write_xmit`, 'unknown')), 'unknown');
  });

  test('has its counts in the callers of TCP, whatever has come on top, and on whatever stack', () => {
    assert.equal(tcpCallersFrom(stackOf(`${send}>tcp_push>!tcp_write_xmit`, 'unknown')), undefined);
    assert.equal(tcpCallersFrom(stackOf('do_syscall_64>__sys_setsockopt>!tcp_setsockopt')), undefined);
    const body = spAt([], send.split('>').indexOf('tcp_sendmsg'));
    for (const inner of ['!_copy_from_iter', 'tcp_push>!tcp_write_xmit>__do_softirq>net_rx_action'])
      assert.equal(tcpCallersFrom(stackOf(`${send}>${inner}`)), body, inner);
  });

  test('has the lock of the socket from when it is taken until it is given back, and not while it waits', () => {
    const push = `${send}>tcp_push>__tcp_push_pending_frames`;
    for (const chain of [
      `${push}>!tcp_write_xmit`,
      `${send}>!_copy_from_iter`,
      send.replace(/tcp_sendmsg_locked$/, '!tcp_sendmsg_locked'),
      `${receive}>!tcp_cleanup_rbuf>asm_sysvec_call_function>release_sock>sock_def_readable`,
      'tcp_sendmsg>lock_sock_nested>_raw_spin_unlock_bh>__local_bh_enable_ip>!do_softirq',
      'tcp_sendmsg>release_sock>__release_sock>tcp_v4_do_rcv>!tcp_ack',
      'tcp_sendmsg>release_sock>tcp_release_cb>!tcp_tsq_write',
      'tcp_sendmsg>release_sock>*tcp_release_cb>!tcp_tsq_write',
      `${receive}>sk_wait_data>release_sock>__release_sock>!tcp_v4_do_rcv`,
      `${receive}>sk_wait_data>lock_sock_nested>!__local_bh_enable_ip`,
    ])
      assert.equal(hasSocketLock(stackOf(chain)), true, chain);
    for (const chain of [
      'tcp_sendmsg>lock_sock_nested>__lock_sock>schedule',
      'tcp_sendmsg>lock_sock_nested>!_raw_spin_lock_bh',
      'tcp_sendmsg>!lock_sock_nested',
      '!tcp_sendmsg',
      'tcp_recvmsg>sk_busy_loop>!napi_busy_loop',
      'tcp_sendmsg>release_sock>!__wake_up',
      'tcp_sendmsg>release_sock>!_raw_spin_unlock_bh',
      `${receive}>sk_wait_data>wait_woken>schedule_timeout`,
      `${receive}>sk_wait_data>lock_sock_nested>__lock_sock>schedule`,
      `${send}>sk_stream_wait_memory>wait_woken>schedule_timeout`,
      'do_syscall_64>__sys_setsockopt>tcp_setsockopt>lock_sock_nested>!_raw_spin_unlock_bh',
    ])
      assert.equal(hasSocketLock(stackOf(chain)), false, chain);
    assert.equal(hasSocketLock(stackOf(`${push}>!tcp_write_xmit`, 'unknown')), false);
  });

  test('is at rest before the first byte, behind the last, and while it sends, answers or waits', () => {
    for (const chain of [
      'tcp_sendmsg>lock_sock_nested>__lock_sock>schedule',
      'tcp_recvmsg>release_sock>__release_sock>tcp_v4_do_rcv>!tcp_ack',
      `${send}>tcp_push>__tcp_push_pending_frames>tcp_write_xmit>__tcp_transmit_skb>!ip_queue_xmit`,
      `${send}>sk_stream_wait_memory>wait_woken>schedule_timeout`,
      `${receive}>tcp_cleanup_rbuf>!__tcp_send_ack`,
      `${receive}>sk_wait_data>lock_sock_nested>!_raw_spin_lock_bh`,
      // What interrupts a thread has a stack of its own, and may be TCP for another socket.
      `${receive}>sk_wait_data>!release_sock>__do_softirq>tcp_v4_rcv>!tcp_rcv_established`,
    ])
      assert.equal(tcpPlace(stackOf(chain)), 'at-rest', chain);
  });

  test('is between the counts while it copies, in the body itself, and wherever nothing says otherwise', () => {
    for (const chain of [
      `${send}>!_copy_from_iter`,
      `${receive}>skb_copy_datagram_iter>__skb_datagram_iter>!_copy_to_iter`,
      send.replace(/tcp_sendmsg_locked$/, '!tcp_sendmsg_locked'),
      receive.replace(/tcp_recvmsg_locked$/, '!tcp_recvmsg_locked'),
      'tcp_sendmsg>!tcp_sendmsg',
      `${send}>tcp_sendmsg_fastopen>schedule`,
      'tcp_recvmsg>inet_recv_error>!put_cmsg',
    ])
      assert.equal(tcpPlace(stackOf(chain)), 'between', chain);
  });
});
