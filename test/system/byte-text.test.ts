import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { bytesToText, isWholeText, showBytes, showText, textToBytes } from '../../src/system/byte-text.ts';

describe("text of the kernel's bytes", () => {
  it('becomes the same bytes again, whatever they are', () => {
    const part = fc.oneof(
      fc.uint8Array({ maxLength: 8 }),
      fc.string({ unit: 'grapheme', maxLength: 4 }).map((text) => new Uint8Array(Buffer.from(text))),
    );
    fc.assert(
      fc.property(fc.array(part), (parts) => {
        const bytes = Buffer.concat(parts);
        assert.deepEqual(textToBytes(bytesToText(bytes)), bytes);
      }),
    );
  });

  it('is UTF-8 where the bytes are, and is known not to be elsewhere', () => {
    assert.equal(bytesToText(Buffer.from('naïve 😀')), 'naïve 😀');
    assert.ok(isWholeText('naïve 😀'));
    const cut = bytesToText(Buffer.from('naï').subarray(0, 3));
    assert.ok(!isWholeText(cut));
    assert.equal(cut.slice(0, 2), 'na');
  });

  it('is shown so that each text stands for one name', () => {
    const caf = bytesToText(Buffer.from('caf\xe9', 'latin1'));
    assert.equal(showText(caf), "$'caf\\xe9'");
    assert.equal(showText('caf\\xe9'), 'caf\\xe9');
    assert.equal(showText("$'caf\\xe9'"), "$'$\\'caf\\\\xe9\\''");
    assert.equal(showBytes(`the process ${caf} of 😀`), 'the process caf\\xe9 of 😀');
  });
});
