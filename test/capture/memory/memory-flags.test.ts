import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  addressSpaceProblems,
  areaProblem,
  futureLockOf,
  lostKeyProblems,
  outsideProblem,
  placeProblem,
  protectionKeyProblem,
  protectionKeysOf,
} from '../../../src/capture/memory/memory-attributes.ts';
import { believedArea } from '../../../src/capture/memory/memory-flags.ts';
import { VM } from '../../../src/linux/mm.ts';
import { mmStruct, vmAreaStruct } from '../../../src/linux/mm-types.ts';
import { newFindings } from '../../../src/model/verdict.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { makeFile } from '../../vmcore/made-file.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { type MadeArea, MadeProcess } from '../../vmcore/made-process.ts';

const BASE = 0x7f00_0000_0000;
const USUAL = 0x73n;

for (const release of releases) {
  suite(`flags of memory areas of ${release}`, () => {
    /** What is believed of an area, what is refused of it, and what was repaired. */
    const believed = (area: (kernel: MadeKernel) => Omit<MadeArea, 'start' | 'pages'>) => {
      const kernel = new MadeKernel(release);
      const process = new MadeProcess(kernel, [{ start: BASE, pages: 2, ...area(kernel) }]);
      const findings = newFindings();
      const found = believedArea(kernel, kernel.bind(vmAreaStruct).at(process.areas[0] ?? 0n), findings);
      return {
        flags: found.flags,
        problem: placeProblem(found) ?? outsideProblem(found) ?? areaProblem(found),
        repairs: findings.repairs,
      };
    };
    const context = 'vm_userfaultfd_ctx.ctx';
    const withFlags = (flags: number | bigint) => USUAL | BigInt(flags);

    test('an area with nothing special is left as it is', () => {
      assert.deepEqual(
        believed(() => ({ flags: USUAL })),
        { flags: 0x73, problem: undefined, repairs: [] },
      );
    });

    /** The third flag of userfaultfd, whose bit shadow stacks took in 6.6. */
    const minor = 1n << (release === 'debian12' ? 37n : 38n);

    test('a userfaultfd is believed where the area has its context as well, or nothing but that', () => {
      const watched = 'is watched by a userfaultfd';
      for (const flags of [USUAL, withFlags(VM.uffdMissing), withFlags(VM.uffdWp), withFlags(minor)]) {
        const { problem, repairs } = believed((kernel) => ({
          flags,
          members: { [context]: kernel.allocate('file') },
        }));
        assert.deepEqual([problem, repairs], [watched, []], flags.toString(16));
      }
    });

    test('a userfaultfd of which the area has no context is a bit that was flipped', () => {
      for (const flag of [VM.uffdMissing, VM.uffdWp, minor]) {
        const { flags, problem, repairs } = believed(() => ({ flags: withFlags(flag) }));
        assert.deepEqual([flags, problem], [0x73, undefined]);
        assert.deepEqual(repairs, [
          {
            what: 'the memory area 0x7f0000000000-0x7f0000002000',
            used: 'vm_userfaultfd_ctx, which is NULL',
            instead: 'userfaultfd flags',
          },
        ]);
      }
    });

    test('a context that leads nowhere, of an area without the flags, is a bit that was flipped', () => {
      const { problem, repairs } = believed(() => ({ flags: USUAL, members: { [context]: 1n << 40n } }));
      assert.equal(problem, undefined);
      assert.deepEqual(
        repairs.map(({ used }) => used),
        ['vm_flags'],
      );
    });

    test('anonymous memory is no device, no huge page of hugetlbfs and no persistent memory', () => {
      for (const flag of [VM.pfnMap, VM.io, VM.mixedMap, VM.hugetlb, VM.sync]) {
        const { flags, problem, repairs } = believed(() => ({ flags: withFlags(flag) }));
        assert.deepEqual([flags, problem, repairs.length], [0x73, undefined, 1]);
        const { problem: ofDevice } = believed(() => ({ flags: withFlags(flag), isSpecial: true }));
        assert.notEqual(ofDevice, undefined);
      }
    });

    test('a file that is not on hugetlbfs is not of huge pages', () => {
      const of = (fileSystem: string) =>
        believed((kernel) => ({
          flags: withFlags(VM.hugetlb),
          file: makeFile(kernel, fileSystem, []).file,
        }));
      assert.equal(of('hugetlbfs').problem, 'is of huge pages from hugetlbfs');
      assert.deepEqual([of('ext4').problem, of('ext4').flags], [undefined, 0x73]);
      assert.match(of('ext4').repairs[0]?.used ?? '', /its file, which is on ext4/);
    });

    test('what is mapped later is locked as it was wanted', () => {
      const kernel = new MadeKernel(release);
      const locks = [0, VM.locked, VM.locked | VM.lockOnFault].map((flags) => {
        const address = kernel.allocate('mm_struct');
        kernel.set('mm_struct', address, 'def_flags', flags);
        return futureLockOf(kernel.bind(mmStruct).at(address));
      });
      assert.deepEqual(locks, [undefined, 'at-once', 'on-fault']);
    });

    test('memory protection keys are those that the program allocated, and a reason only where a CPU had the rights', () => {
      const kernel = new MadeKernel(release);
      kernel.variable('init_user_ns', 0n);
      const address = kernel.allocate('mm_struct');
      kernel.set('mm_struct', address, 'context.pkey_allocation_map', 0b10_0111);
      kernel.set('mm_struct', address, 'context.execute_only_pkey', 2);
      kernel.set('mm_struct', address, 'user_ns', kernel.symbol('init_user_ns'));
      const mm = kernel.bind(mmStruct).at(address);
      const view = kernel.bind(vmAreaStruct).at(kernel.allocate('vm_area_struct'));
      assert.deepEqual(protectionKeysOf(mm), [1, 5]);
      assert.deepEqual(addressSpaceProblems(kernel, mm), []);
      assert.deepEqual(lostKeyProblems(mm, false), []);
      assert.deepEqual(lostKeyProblems(mm, true), [
        'has memory protection keys (pkey_alloc) and was on a CPU, which had its rights to them',
      ]);
      const keyed = (key: number): string | undefined =>
        protectionKeyProblem(mm, { start: 0, end: 0, flags: 0, flagsHigh: key, isWatched: false, view });
      assert.deepEqual([0, 1, 5].map(keyed), [undefined, undefined, undefined]);
      assert.match(keyed(2) ?? '', /can be executed only/);
      assert.match(keyed(3) ?? '', /has memory protection key 3, which is not allocated/);
      for (const [map, own] of [
        [0b10, 0xffff],
        [0b11, 2],
      ] as const) {
        kernel.set('mm_struct', address, 'context.pkey_allocation_map', map);
        kernel.set('mm_struct', address, 'context.execute_only_pkey', own);
        assert.deepEqual(addressSpaceProblems(kernel, kernel.bind(mmStruct).at(address)), [
          'has a damaged map of memory protection keys',
        ]);
      }
    });
  });
}
