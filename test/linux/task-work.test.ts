import assert from 'node:assert/strict';
import { test } from 'node:test';
import { filesToClose } from '../../src/linux/task-work.ts';
import { releases } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

const CLOSE = 0xffff_ffff_8123_0000n;

for (const release of releases) {
  test(`files of ${release} that are about to be closed are found among other work`, () => {
    const kernel = new MadeKernel(release);
    kernel.symbols.set('____fput', CLOSE);
    const task = kernel.allocate('task_struct');
    assert.deepEqual(filesToClose(kernel, task), []);
    const member = release === 'debian13' ? 'f_task_work' : 'f_rcuhead';
    const files = [kernel.allocate('file'), kernel.allocate('file')] as const;
    const works = files.map((file) => kernel.memberAddress('file', file, member));
    const other = kernel.allocate('callback_head');
    const chain = [works[0], other, works[1]].map((work) => work ?? assert.fail());
    for (const [i, work] of chain.entries()) {
      kernel.set('callback_head', work, 'next', chain[i + 1] ?? 0n);
      kernel.set('callback_head', work, 'func', work === other ? CLOSE + 64n : CLOSE);
    }
    kernel.set('task_struct', task, 'task_works', chain[0] ?? 0n);
    assert.deepEqual(filesToClose(kernel, task), files);
  });
}
