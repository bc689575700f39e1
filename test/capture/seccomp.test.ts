import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { SeccompFilters } from '../../src/capture/seccomp.ts';
import { seccompMode } from '../../src/linux/seccomp.ts';
import { ContainerError } from '../../src/vmcore/errors.ts';
import { releases } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

/** `BPF_LD | BPF_W | BPF_ABS` of the number of the call, and what ends a program: allow, or an error. */
const LOAD = 0x20n;
const ALLOW = (0x7fff_0000n << 32n) | 0x06n;
const ERROR = (0x0005_0001n << 32n) | 0x06n;

for (const release of releases) {
  suite(`filters of seccomp of ${release}`, () => {
    /** A filter with its program. @returns its address */
    function add(kernel: MadeKernel, program: readonly bigint[], previous = 0n, log = 0): bigint {
      const [filter, prog, original, raw] = [
        kernel.allocate('seccomp_filter'),
        kernel.allocate('bpf_prog'),
        kernel.allocate('sock_fprog_kern'),
        kernel.allocate('page'),
      ];
      const words = Buffer.alloc(program.length * 8);
      for (const [i, instruction] of program.entries()) words.writeBigUInt64LE(instruction, i * 8);
      kernel.write(raw, words);
      kernel.set('sock_fprog_kern', original, 'len', program.length);
      kernel.set('sock_fprog_kern', original, 'filter', raw);
      kernel.set('bpf_prog', prog, 'orig_prog', original);
      for (const [name, value] of Object.entries({ prog, prev: previous, log }))
        kernel.set('seccomp_filter', filter, name, value);
      return filter;
    }
    const of = (kernel: MadeKernel, seccompFilter: bigint, filters = new SeccompFilters(kernel)) =>
      filters.of({ seccompMode: seccompMode.filter, seccompFilter });

    test('are read as they were given, each with those that were there before', () => {
      const kernel = new MadeKernel(release);
      const first = add(kernel, [ALLOW]);
      const second = add(kernel, [LOAD, ERROR], first, 1);
      const { filter } = of(kernel, second);
      assert.deepEqual(filter?.program, Buffer.from('2000000000000000' + '0600000001000500', 'hex'));
      assert.equal(filter?.isLogged, true);
      assert.deepEqual(filter?.previous, {
        program: Buffer.from('060000000000ff7f', 'hex'),
        isLogged: false,
        previous: undefined,
      });
    });

    test('that two threads have in common are the same object', () => {
      const kernel = new MadeKernel(release);
      const first = add(kernel, [ALLOW]);
      const filters = new SeccompFilters(kernel);
      const older = of(kernel, first, filters).filter;
      assert.equal(of(kernel, add(kernel, [ALLOW], first), filters).filter?.previous, older);
    });

    test('are refused where another process is asked, or what is there is none', () => {
      const kernel = new MadeKernel(release);
      const asks = add(kernel, [ALLOW]);
      kernel.set('seccomp_filter', asks, 'notif', 1n);
      assert.match(of(kernel, asks).problem ?? '', /asks another process/);
      assert.match(of(kernel, 0n).problem ?? '', /is not there/);
      assert.throws(() => of(kernel, add(kernel, [LOAD])), ContainerError);
      const strict = { seccompMode: seccompMode.strict, seccompFilter: 0n };
      assert.equal(new SeccompFilters(kernel).of(strict).problem, 'has a seccomp mode');
      assert.deepEqual(new SeccompFilters(kernel).of({ ...strict, seccompMode: 0 }), {});
    });

    test('that lead back to themselves are refused', () => {
      const kernel = new MadeKernel(release);
      const filter = add(kernel, [ALLOW]);
      kernel.set('seccomp_filter', filter, 'prev', filter);
      assert.throws(() => of(kernel, filter), /has no end/);
    });
  });
}
