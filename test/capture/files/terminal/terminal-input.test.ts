import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { putBackInput, putBackOutput } from '../../../../src/capture/files/terminal/terminal-input.ts';
import type { TtyInput } from '../../../../src/linux/tty.ts';
import type { Termios } from '../../../../src/model/terminal.ts';

/**
 * As of a fresh pty: ICRNL IXON, OPOST ONLCR, ISIG ICANON ECHO ... (drivers/tty/tty_io.c, tty_std_termios).
 */
const cooked: Termios = {
  iflag: 0o2400,
  oflag: 0o5,
  cflag: 0o277,
  lflag: 0o105073,
  line: 0,
  cc: Uint8Array.from([3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0]),
};
const raw: Termios = { ...cooked, iflag: 0, oflag: 0, lflag: 0 };

function input(text: string | Uint8Array, rest: Partial<TtyInput> = {}): TtyInput {
  const line = typeof text === 'string' ? Buffer.from(text, 'latin1') : text;
  return { line, completeBytes: line.length, marked: false, pending: new Uint8Array(0), ...rest };
}

/** What OPOST with ONLCR makes of what a program writes. */
function onlcr(bytes: Uint8Array): Buffer {
  return Buffer.from(Buffer.from(bytes).toString('latin1').replaceAll('\n', '\r\n'), 'latin1');
}

suite('unread terminal output', () => {
  test('is written so that output processing gives the same bytes again', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1000 }), (written) => {
        const { bytes, note } = putBackOutput(input(onlcr(written)), cooked);
        assert.equal(note, undefined);
        assert.deepEqual(onlcr(bytes), onlcr(written));
      }),
    );
  });

  test('goes through unchanged without output processing', () => {
    const { bytes } = putBackOutput(input('a\nb\r\n', { pending: Buffer.from('c') }), raw);
    assert.equal(Buffer.from(bytes).toString(), 'a\nb\r\nc');
  });

  test('is reported as lost if a line feed came without its carriage return', () => {
    const { bytes, note } = putBackOutput(input('a\n'), cooked);
    assert.equal(bytes.length, 0);
    assert.equal(note, '2 bytes of terminal output that had not been read are lost');
  });
});

suite('unread terminal input', () => {
  test('is put back as it is, and said to be echoed again if the terminal echoes', () => {
    const { bytes, note } = putBackInput(input('typed ahead\n'), cooked);
    assert.equal(Buffer.from(bytes).toString(), 'typed ahead\n');
    assert.equal(note, '12 bytes of terminal input are echoed once more');
  });

  test('of a raw terminal can be any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1000 }), (typed) => {
        assert.deepEqual(Uint8Array.from(putBackInput(input(typed), raw).bytes), Uint8Array.from(typed));
      }),
    );
  });

  for (const [what, text] of Object.entries({
    interrupt: '\x03',
    erase: '\x7f',
    'end of file': '\x04',
    stop: '\x13',
  })) {
    test(`with a character that would act as ${what} is reported as lost`, () => {
      const { bytes, note } = putBackInput(input(`a${text}`), cooked);
      assert.equal(bytes.length, 0);
      assert.equal(note, '2 bytes of terminal input that had not been read are lost');
    });
  }

  test('with a mark for the end of the file is reported as lost', () => {
    assert.match(putBackInput(input('\0', { marked: true }), cooked).note ?? '', /lost/);
  });

  test('of nothing says nothing', () => {
    assert.deepEqual(putBackInput(input(''), cooked), { bytes: new Uint8Array(0), note: undefined });
  });
});
