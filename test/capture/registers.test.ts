import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hasDefaultModes } from '../../src/capture/arch/x86-64.ts';

function saved(fcw: number, mxcsr: number): Buffer {
  const fxsave = Buffer.alloc(512);
  fxsave.writeUInt16LE(fcw, 0);
  fxsave.writeUInt32LE(mxcsr, 24);
  return fxsave;
}

describe('floating-point modes, which functions have to preserve,', () => {
  it('are the usual ones whatever exceptions have happened', () => {
    assert.equal(hasDefaultModes(saved(0x37f, 0x1f80)), true);
    assert.equal(hasDefaultModes(saved(0x37f, 0x1fa1)), true);
  });

  it('are a thread’s own if it rounds otherwise, takes exceptions or flushes to zero', () => {
    assert.equal(hasDefaultModes(saved(0x77f, 0x1f80)), false);
    assert.equal(hasDefaultModes(saved(0x37f, 0x3f80)), false);
    assert.equal(hasDefaultModes(saved(0x37f, 0x1f00)), false);
    assert.equal(hasDefaultModes(saved(0x37f, 0x9fc0)), false);
  });
});
