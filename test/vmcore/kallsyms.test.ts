import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { encodeKallsyms } from '../../lab/fixture/kallsyms-encode.ts';
import { VmcoreError } from '../../src/vmcore/errors.ts';
import { Kallsyms, type KallsymsTables } from '../../src/vmcore/kallsyms.ts';
import { processorMilliseconds } from '../processor-time.ts';

const BASE = 0xffff_ffff_8100_0000n;
const longName = `long_${'x'.repeat(300)}`;
const symbols = [
  { name: 'fixed_percpu_data', address: 0n },
  { name: 'runqueues', address: 0x34d80n },
  { name: '_stext', address: BASE },
  { name: 'do_one_initcall', address: BASE + 0x1000n },
  { name: 'init_task', address: BASE + 0x2000n },
  { name: 'twice', address: BASE + 0x3000n },
  { name: 'twice', address: BASE + 0x4000n },
  { name: longName, address: BASE + 0x5000n },
];

function tables(): KallsymsTables {
  const { names, tokens, tokenIndex, offsets } = encodeKallsyms(symbols, BASE);
  return { count: symbols.length, names, tokens, tokenIndex, offsets, relativeBase: BASE };
}

const stext = new Map([
  ['_stext', BASE],
  ['init_task', BASE + 0x2000n],
]);

describe('kallsyms', () => {
  it('finds every symbol, names of more than 127 tokens among them', () => {
    const kallsyms = new Kallsyms(tables(), stext);
    for (const { name, address } of symbols.filter(({ name }) => name !== 'twice')) {
      assert.equal(kallsyms.lookup(name), address, name);
    }
  });

  it('gives the first of several symbols of one name, and nothing for a name that it does not have', () => {
    const kallsyms = new Kallsyms(tables(), stext);
    assert.equal(kallsyms.lookup('twice'), BASE + 0x3000n);
    assert.equal(kallsyms.lookup('Dinit_task'), undefined);
    assert.equal(kallsyms.lookup('init_tas'), undefined);
    assert.equal(kallsyms.lookup(''), undefined);
  });

  it('names the symbol at or below an address', () => {
    const kallsyms = new Kallsyms(tables(), stext);
    assert.deepEqual(kallsyms.symbolAt(BASE + 0x1010n), { name: 'do_one_initcall', offset: 16 });
    assert.deepEqual(kallsyms.symbolAt(BASE), { name: '_stext', offset: 0 });
    assert.equal(kallsyms.symbolAt(0xffff_8880_0000_0000n), undefined);
  });

  it('understands offsets of kernels without absolute per-CPU symbols', () => {
    const plain = tables();
    const offsets = Buffer.alloc(symbols.length * 4);
    symbols.forEach(({ address }, i) => {
      offsets.writeUInt32LE(address < BASE ? 0 : Number(address - BASE), i * 4);
    });
    assert.equal(new Kallsyms({ ...plain, offsets }, stext).lookup('init_task'), BASE + 0x2000n);
  });

  it('is refused if it is damaged', () => {
    const whole = tables();
    const damaged: [string, KallsymsTables][] = [
      ['other base', { ...whole, relativeBase: BASE + 4096n }],
      ['names cut off', { ...whole, names: whole.names.subarray(0, 40) }],
      ['zeroed names', { ...whole, names: new Uint8Array(whole.names.length) }],
      ['tokens cut off', { ...whole, tokens: whole.tokens.subarray(0, 100) }],
      ['zeroed offsets', { ...whole, offsets: new Uint8Array(whole.offsets.length) }],
    ];
    for (const [what, broken] of damaged) assert.throws(() => new Kallsyms(broken, stext), VmcoreError, what);
  });

  it('does not take long over a table of names that are all the same', () => {
    const count = 1 << 18;
    const names = new Uint8Array(count * 2).map((_, i) => (i % 2 === 0 ? 1 : 68));
    const started = processorMilliseconds();
    assert.throws(
      () => new Kallsyms({ ...tables(), count, names, offsets: new Uint8Array(count * 4) }, stext),
      /the same/,
    );
    assert.ok(processorMilliseconds() - started < 5000);
  });
});
