import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { FileRefusal } from '../../../../src/capture/files/refusal.ts';
import { checkSocketCgroup } from '../../../../src/capture/files/sockets/socket-cgroup.ts';
import { releases } from '../../../vmcore/fixtures.ts';
import { MadeKernel } from '../../../vmcore/made-kernel.ts';

for (const release of releases) {
  suite(`the cgroup of a socket of ${release}`, () => {
    /** A cgroup below the root with programs of the types that are given. */
    function made(types: readonly number[]): { kernel: MadeKernel; cgroup: bigint } {
      const kernel = new MadeKernel(release);
      const cgroup = kernel.allocate('cgroup');
      const [none, some] = [kernel.allocate('page'), kernel.allocate('page')];
      const word = Buffer.alloc(8);
      word.writeBigUInt64LE(0xffff_ffff_c000_1000n);
      kernel.write(some + 16n, word);
      for (let type = 0; type < 5; type++)
        kernel.set('cgroup', cgroup, `bpf.effective[${type}]`, types.includes(type) ? some : none);
      return { kernel, cgroup };
    }
    const check = ({ kernel, cgroup }: ReturnType<typeof made>): void =>
      checkSocketCgroup(kernel, { cgroup });

    test('that filters its packets is refused by name', () => {
      for (const type of [0, 1]) {
        assert.throws(
          () => check(made([type])),
          (error) => error instanceof FileRefusal && error.reason.includes('IPAddressDeny='),
        );
      }
    });

    test('that is the root is no reason', () => {
      const root = made([0, 1]);
      root.kernel.text.set(root.cgroup, 'cgrp_dfl_root');
      check(root);
    });

    test('that limits devices only is no reason, nor is none', () => {
      check(made([]));
      check(made([4]));
      checkSocketCgroup(new MadeKernel(release), { cgroup: 0n });
      checkSocketCgroup(new MadeKernel(release), { cgroup: undefined });
    });
  });
}
