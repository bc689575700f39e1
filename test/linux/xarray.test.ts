import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { idrFind, idrForEach } from '../../src/linux/idr.ts';
import { xaForEach, xaLoad } from '../../src/linux/xarray.ts';
import { ContainerError } from '../../src/vmcore/errors.ts';
import { openFixture, releases } from '../vmcore/fixtures.ts';
import { count, wordPatcher } from './walks.ts';

for (const release of releases) {
  const kernel = openFixture(release);
  const withWord = wordPatcher(release, kernel);

  describe(`xarrays of ${release}`, () => {
    const idr =
      kernel.symbol('init_pid_ns') + BigInt(kernel.layouts.member('pid_namespace', 'idr')?.offsetBytes ?? 0);

    it('give the same entries by walking and by looking up', () => {
      const entries = [...xaForEach(kernel, idr)];
      assert.ok(entries.length > 50);
      for (const { index, entry } of entries) assert.equal(xaLoad(kernel, idr, index), entry);
      assert.equal(xaLoad(kernel, idr, 1_000_000), 0n);
      assert.deepEqual(
        entries.map(({ index }) => index),
        [...idrForEach(kernel, idr)].map(({ id }) => id),
      );
      assert.equal(idrFind(kernel, idr, 1), entries[0]?.entry);
    });

    it('are refused where a node is not in its place', () => {
      const head = idr + BigInt(kernel.layouts.member('xarray', 'xa_head')?.offsetBytes ?? 0);
      const node = kernel.memory.pointer(head) & ~3n;
      assert.throws(
        () => count(xaForEach(withWord(node, kernel.memory.u64(node) ^ 3n), idr)),
        /xarray at .* is not where it belongs/,
      );
      const slot = node + BigInt(kernel.layouts.member('xa_node', 'slots')?.offsetBytes ?? 0);
      assert.throws(() => count(xaForEach(withWord(slot, node | 2n), idr)), ContainerError);
      assert.throws(
        () => count(xaForEach(withWord(head, 0xffff_0000_0000_0002n), idr)),
        /which cannot be read/,
      );
    });
  });
}
