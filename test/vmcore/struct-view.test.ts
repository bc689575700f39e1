import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AddressError } from '../../src/vmcore/errors.ts';
import { memberWindow, StructView, type WindowSource } from '../../src/vmcore/struct-view.ts';

/** Memory of so many bytes from address 0 on, each of which is its own address. */
function memory(length: number): WindowSource {
  const data = new DataView(Uint8Array.from({ length }, (_, i) => i).buffer);
  return {
    window: (address, bytes) => {
      const offset = Number(address);
      if (offset + bytes > length) throw new AddressError(address, 'is not in the dump');
      return { data, offset };
    },
    contiguous: (address, bytes) => {
      const offset = Number(address);
      return offset + bytes > length ? undefined : { data, offset };
    },
  };
}

describe('a member', () => {
  const view = new StructView(16n, memory(32));

  it('is in the window of its structure', () => {
    const { data, offset } = memberWindow(view, 16, 8, 4, 'thing.member');
    assert.equal(data.getUint8(offset + 8), 24);
  });

  it('behind its structure is read where it is, or is not in the dump', () => {
    const short = new StructView(16n, memory(32));
    const { data, offset } = memberWindow(short, 8, 8, 8, 'thing.tail');
    assert.equal(data.getUint8(offset + 8), 24);
    assert.throws(
      () => memberWindow(view, 16, 16, 4, 'thing.member'),
      (error) => error instanceof AddressError && error.message.includes('thing.member'),
    );
  });
});
