// Where in TCP a thread is, told from made stacks; guests have real ones (test/guest/kernel-stack.test.ts).
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { isInTcp, tcpPlace } from '../../src/capture/tcp-place.ts';
import type { KernelStack, StackFrame } from '../../src/linux/readers/kernel-stack.ts';

/** A stack of calls, the outermost first: `tcp_sendmsg>tcp_push`; `!name` was interrupted. */
function stackOf(chain: string, end: KernelStack['end'] = 'user'): KernelStack {
  const names = chain.split('>');
  const frames = names.map((name, i): StackFrame => {
    const isInterrupted = name.startsWith('!');
    const called = names[i + 1]?.replace('!', '');
    return {
      ...{ ip: 0n, sp: 0n, isInterrupted, function: name.replace('!', '') },
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
    assert.equal(isInTcp(stackOf(`${send}>tcp_push>!tcp_write_xmit`, 'unknown')), false);
    assert.equal(isInTcp(stackOf(`${send}>!_copy_from_iter`)), true);
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
