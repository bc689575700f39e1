import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { XFEATURE } from '../../../../src/arch/x86-64/xstate.ts';
import { readXstate } from '../../../../src/linux/arch/x86/fpu.ts';
import { releases } from '../../../vmcore/fixtures.ts';
import { MadeKernel } from '../../../vmcore/made-kernel.ts';

const COMPONENTS = 19;
const PKRU_OFFSET = 2688;
const PKRU_BIT = 1n << BigInt(XFEATURE.pkru);

for (const release of releases) {
  suite(`registers of ${release} of a CPU with memory protection keys`, () => {
    /** `thread.fpu.fpstate` whose area has these components in use. */
    function read(inUse: bigint, pkru: number): ReturnType<typeof readXstate> {
      const kernel = new MadeKernel(release);
      for (const [symbol, value] of [
        ['xstate_sizes', 8],
        ['xstate_offsets', PKRU_OFFSET],
        ['xstate_flags', 0],
      ] as const) {
        const table = kernel.physicalToVirtual(kernel.tables.allocate());
        const words = Buffer.alloc(COMPONENTS * 4);
        words.writeUInt32LE(value, XFEATURE.pkru * 4);
        kernel.write(table, words);
        kernel.symbols.set(symbol, table);
      }
      const fpstate = kernel.physicalToVirtual(kernel.tables.allocate());
      kernel.set('fpstate', fpstate, 'size', PKRU_OFFSET + 8);
      kernel.set('fpstate', fpstate, 'xfeatures', 3n | PKRU_BIT);
      kernel.set('fpstate', fpstate, 'user_xfeatures', 3n | PKRU_BIT);
      const area = kernel.memberAddress('fpstate', fpstate, 'regs');
      const header = Buffer.alloc(8);
      header.writeBigUInt64LE(inUse);
      kernel.write(area + 512n, header);
      return readXstate(kernel, fpstate, pkru);
    }

    test('say which rights the thread has, whatever the area had when it was saved', () => {
      for (const inUse of [3n, 3n | PKRU_BIT]) {
        const { xstateBv, components } = read(inUse, 0x5555_5554);
        assert.equal(xstateBv, 3n | PKRU_BIT);
        assert.deepEqual(
          components.map(({ number, data }) => [number, Buffer.from(data).readUInt32LE(0)]),
          [[XFEATURE.pkru, 0x5555_5554]],
        );
        assert.equal(read(inUse, 0).xstateBv, 3n);
      }
    });
  });
}
