import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BTF_KIND, Btf } from '../../src/vmcore/btf.ts';
import { BtfFormat } from '../../src/vmcore/btf-format.ts';
import { BtfLayouts } from '../../src/vmcore/btf-layouts.ts';
import { VmcoreError } from '../../src/vmcore/errors.ts';
import { openFixture, releases } from './fixtures.ts';

for (const release of releases) {
  describe(`BTF of ${release}`, () => {
    const { layouts } = openFixture(release);

    it('knows sizes and places that the ABI fixes', () => {
      assert.equal(layouts.sizeOf('list_head'), 16);
      assert.equal(layouts.member('list_head', 'prev')?.offsetBytes, 8);
      assert.equal(layouts.sizeOf('pt_regs'), 168);
      assert.equal(layouts.member('pt_regs', 'ip')?.offsetBytes, 128);
      assert.equal(layouts.sizeOf('page'), 64);
      assert.equal(layouts.sizeOf('no_such_struct'), undefined);
      assert.equal(layouts.member('list_head', 'nothing'), undefined);
    });

    it('knows enumerators', () => {
      assert.equal(layouts.enumerator('PIDTYPE_PID'), 0);
      assert.equal(layouts.enumerator('PIDTYPE_TGID'), 1);
      assert.equal(layouts.enumerator('PIDTYPE_NONE'), undefined);
    });

    it('steps through arrays and refuses to step past their end', () => {
      const [first, second] = [0, 1].map(
        (i) => layouts.member('task_struct', `pid_links[${i}].next`)?.offsetBytes ?? 0,
      );
      assert.equal((second ?? 0) - (first ?? 0), 16);
      assert.equal(layouts.member('task_struct', 'pid_links[4]'), undefined);
    });

    it('writes declarations as C does', () => {
      const format = new BtfFormat(layouts.btf);
      const id = layouts.structId('task_struct') ?? 0;
      const declarations = format.members(id).map(({ declaration }) => declaration);
      assert.ok(declarations.includes('char comm[16]'));
      assert.ok(declarations.includes('struct list_head tasks'));
      assert.ok(
        declarations.some((text) => /^(const )?struct cred \*|^void \*real_cred|\*real_cred$/.test(text)),
      );
    });
  });
}

describe('BTF that is damaged', () => {
  const { btf } = openFixture('debian13').layouts;

  it('is refused, or gives answers, but never anything but a VmcoreError', () => {
    const whole = Buffer.from(btf.raw);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 20 }),
        (changes) => {
          const copy = Buffer.from(whole);
          for (const [at, value] of changes) copy[at] = value;
          try {
            const layouts = new BtfLayouts(new Btf(copy));
            for (const name of ['task_struct', 'mm_struct', 'list_head']) {
              layouts.sizeOf(name);
              layouts.member(name, 'thread.fsbase');
              const id = layouts.structId(name);
              if (id !== undefined) new BtfFormat(layouts.btf).members(id);
            }
            layouts.enumerator('PIDTYPE_PID');
          } catch (error) {
            if (!(error instanceof VmcoreError)) throw error;
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('is refused where a structure contains itself', () => {
    const copy = Buffer.from(btf.raw);
    const [id = 0] = btf.find('list_head', [BTF_KIND.STRUCT]);
    const member = btf.member(id, 0);
    assert.equal(member.name, 'next');
    // Makes the first member anonymous and of the structure's own type.
    const at = findMember(copy, btf, id);
    copy.writeUInt32LE(0, at);
    copy.writeUInt32LE(id, at + 4);
    assert.throws(() => new BtfLayouts(new Btf(copy)).member('list_head', 'nowhere'), /contains itself/);
    copy.writeUInt32LE(0, at - 12);
    assert.throws(() => new BtfFormat(new Btf(copy)).members(id), /contains itself/);
  });

  it('is refused if it is cut off or is something else', () => {
    assert.throws(() => new Btf(new Uint8Array(0)), /magic/);
    assert.throws(() => new Btf(new Uint8Array(64)), /magic/);
    assert.throws(() => new Btf(btf.raw.subarray(0, btf.raw.length - 1)), VmcoreError);
  });
});

/** Where the first member of a structure is in the file: its type starts with name, info and size. */
function findMember(raw: Buffer, btf: Btf, id: number): number {
  const strings = 24 + raw.readUInt32LE(16);
  const name = Buffer.from(`${btf.name(id)}\0`);
  for (let at = 24; at + 36 < strings; at += 4) {
    const nameAt = strings + raw.readUInt32LE(at);
    const isStruct = raw.readUInt32LE(at + 4) === ((BTF_KIND.STRUCT << 24) | btf.vlen(id));
    if (isStruct && raw.subarray(nameAt, nameAt + name.length).equals(name)) return at + 12;
  }
  throw new Error('struct list_head is not in the file');
}
