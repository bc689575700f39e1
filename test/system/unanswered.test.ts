// Looks at what the kernel answers: in a network namespace of its own, for which the file runs itself once
// more.
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { suite, test } from 'node:test';
import { askEnd, hurry, resetHalfOpen, TcpEndsNow } from '../../src/system/tcp-ask.ts';
import { leaveUnanswered } from '../../src/system/unanswered.ts';
import { beginEnds, isInside, reverse, runInside } from './two-ends.ts';

const needsRoot = { skip: process.getuid?.() !== 0 ? 'only root may do this' : false };

test('what is left unanswered', { skip: isInside || needsRoot.skip }, () => {
  runInside(import.meta.filename);
});

suite('segments of a connection that is not there', { skip: !isInside }, () => {
  for (const address of ['127.0.0.1', '::1'] as const) {
    const begin = () => beginEnds(address);

    test(`are answered with a reset, as ever (${address})`, async () => {
      const { ends } = await begin();
      try {
        await ends.say('vanish');
        await ends.say('send');
        assert.equal(await ends.say('hear'), 'reset');
      } finally {
        await ends.end();
      }
    });

    test(`are not answered, and reach it when it is there again (${address})`, async () => {
      const { ends, tuple } = await begin();
      const other = { ...tuple, peer: { ...tuple.peer, port: tuple.peer.port ^ 1 } };
      const kept = leaveUnanswered([other, tuple]);
      try {
        await ends.say('vanish');
        await ends.say('send');
        assert.equal(await ends.say('hear'), 'nothing');
        await ends.say('again');
        assert.equal(await ends.say('take'), "b'request'");
        assert.equal(await ends.say('hear'), 'nothing');
      } finally {
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });

    test(`are answered when nobody has the descriptors any more (${address})`, async () => {
      const { ends, tuple } = await begin();
      const kept = leaveUnanswered([tuple]);
      await ends.say('vanish');
      await ends.say('send');
      assert.equal(await ends.say('hear'), 'nothing');
      for (const fd of kept) closeSync(fd);
      try {
        assert.equal(await ends.say('hear long'), 'reset');
      } finally {
        await ends.end();
      }
    });

    test(`of another connection are answered (${address})`, async () => {
      const { ends, tuple } = await begin();
      const kept = leaveUnanswered([{ ...tuple, own: { ...tuple.own, port: tuple.own.port ^ 1 } }]);
      try {
        await ends.say('vanish');
        await ends.say('send');
        assert.equal(await ends.say('hear'), 'reset');
      } finally {
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });

    test(`has an idle end reset that is asked when the other one has gone (${address})`, async () => {
      const { ends, tuple } = await begin();
      try {
        assert.deepEqual([new TcpEndsNow().has(tuple), new TcpEndsNow().has(reverse(tuple))], [true, true]);
        await ends.say('vanish');
        assert.deepEqual([new TcpEndsNow().has(tuple), new TcpEndsNow().has(reverse(tuple))], [false, true]);
        assert.equal(await ends.say('hear'), 'nothing');
        assert.deepEqual(await resetHalfOpen([reverse(tuple)]), []);
        assert.equal(await ends.say('hear'), 'reset');
      } finally {
        await ends.end();
      }
    });

    test(`has one reset at once that has sent in vain (${address})`, async () => {
      const { ends, tuple } = await begin();
      const kept = leaveUnanswered([tuple]);
      await ends.say('vanish');
      await ends.say('send');
      // Each time that nothing comes it waits twice as long until it sends again.
      for (let i = 0; i < 4; i++) assert.equal(await ends.say('hear'), 'nothing');
      for (const fd of kept) closeSync(fd);
      try {
        assert.deepEqual(await resetHalfOpen([reverse(tuple)]), []);
        assert.equal(await ends.say('hear'), 'reset');
      } finally {
        await ends.end();
      }
    });

    test(`does nothing to ends that are asked, and are both there (${address})`, async () => {
      const { ends, tuple } = await begin();
      try {
        for (const one of [tuple, reverse(tuple), tuple]) askEnd(one);
        assert.equal(await ends.say('hear'), 'nothing');
        await ends.say('send');
        assert.equal(await ends.say('take'), "b'request'");
        assert.equal(await ends.say('hear'), 'nothing');
        assert.deepEqual([new TcpEndsNow().has(tuple), new TcpEndsNow().has(reverse(tuple))], [true, true]);
      } finally {
        await ends.end();
      }
    });

    test(`does not tell an end that is asked while it is left unanswered (${address})`, async () => {
      const { ends, tuple } = await begin();
      const kept = leaveUnanswered([tuple]);
      try {
        await ends.say('vanish');
        askEnd(reverse(tuple));
        assert.equal(await ends.say('hear'), 'nothing');
        await ends.say('send');
        await ends.say('again');
        assert.equal(await ends.say('take'), "b'request'");
        assert.equal(await ends.say('hear'), 'nothing');
      } finally {
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });

    test(`are sent again at once by an end that is hurried when the other one is there (${address})`, async () => {
      const { ends, tuple } = await begin();
      const kept = leaveUnanswered([tuple]);
      try {
        await ends.say('vanish');
        const end = { ...reverse(tuple), unconfirmed: Number(await ends.say('number')) };
        await ends.say('send');
        // By now it sends again after more than three seconds.
        for (let i = 0; i < 7; i++) assert.equal(await ends.say('hear'), 'nothing');
        assert.equal(new TcpEndsNow().isUnanswered(end), true);
        await ends.say('again');
        assert.deepEqual(await hurry([end]), []);
        assert.equal(new TcpEndsNow().has(end), true);
        assert.equal(await ends.say('reply'), "b'request'");
        assert.equal(await ends.say('hear'), 'nothing');
      } finally {
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });
  }
});
