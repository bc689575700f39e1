import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { LiveCpus } from '../../src/capture/arch/index.ts';
import { hasLostRegisters } from '../../src/capture/place.ts';
import { TIF } from '../../src/linux/sched.ts';
import { releases } from '../vmcore/fixtures.ts';
import { Changing, NEXT_GS_BASE } from './arch/changing.ts';
import { ALL, APIC_ID, GS_BASE, xsaveArea } from './arch/computing.ts';

const SWITCHES = ['__switch_to', 'finish_task_switch', '__schedule', 'schedule_tail'];
/** Where a new task begins: 6.5 gave the assembler's part a name of its own. */
const BEGINNINGS = ['ret_from_fork', 'ret_from_fork_asm'];
const NOWHERE = (pid: number): string =>
  `thread ${pid} was on a CPU, and nothing tells on which, nor in what state`;

for (const release of releases) {
  suite(`a CPU that was changing from one task to another, ${release},`, () => {
    test('has the one before as long as it is on its stack; the next one is like one that sleeps', () => {
      const changing = new Changing(release);
      const { cpuOf, switching } = changing.running;
      assert.deepEqual([cpuOf.get(changing.task), cpuOf.has(changing.next)], [1, false]);
      assert.deepEqual([...switching], [[changing.next, { cpu: 1, part: 'saved' }]]);
      assert.deepEqual(changing.placeOf(changing.next), { onCpu: undefined, lost: undefined });
      assert.equal(changing.placeOf(changing.task).onCpu?.isLeaving, false);
    });

    test('has the next one when it has come to its stack, of which all is in memory', () => {
      const changing = new Changing(release);
      changing.isOn(changing.next);
      assert.equal(changing.running.cpuOf.get(changing.next), 1);
      assert.equal(changing.running.cpuOf.has(changing.task), false);
      assert.deepEqual(changing.placeOf(changing.next), { onCpu: undefined, lost: undefined });
    });

    test('has neither while it is at the beginning of that stack, which is whole', () => {
      const changing = new Changing(release);
      changing.isOn(changing.next, '__switch_to_asm');
      const { cpuOf, switching } = changing.running;
      assert.deepEqual([cpuOf.has(changing.next), cpuOf.has(changing.task)], [false, false]);
      assert.deepEqual(
        [switching.get(changing.next)?.part, switching.get(changing.task)?.part],
        ['saved', 'leaving'],
      );
    });

    test('still has the vector registers of the one before then', () => {
      const changing = new Changing(release);
      changing.isOn(changing.next, 'save_fpregs_to_fpstate');
      const { fpu, registers, problemsOfState, olderBases } = changing.captureOf(changing.task);
      assert.deepEqual([problemsOfState, fpu.xstateBv, registers.gsBase], [[], ALL, GS_BASE]);
      assert.deepEqual(olderBases, ['fs']);
    });

    test('gives nobody the GS base of another', () => {
      const changing = new Changing(release);
      changing.area.save(APIC_ID, xsaveArea(), { xcr0: ALL, kernelGsBase: NEXT_GS_BASE });
      changing.isOn(changing.next, '__wrgsbase_inactive');
      const { registers, olderBases } = changing.captureOf(changing.task);
      assert.deepEqual([registers.gsBase, olderBases], [GS_BASE, ['fs', 'gs']]);
    });

    test('gives nobody the key rights of another', () => {
      const changing = new Changing(release);
      changing.set('thread.pkru', 0x5555_5554);
      changing.isOn(changing.next, '__switch_to');
      assert.deepEqual(changing.captureOf(changing.task).problemsOfState, [
        'was being taken off a CPU, and its rights to memory protection keys cannot be told',
      ]);
    });

    test('has lost the registers of the one before that computed, without stage zero', () => {
      const changing = new Changing(release);
      changing.kernel.notes.splice(0);
      changing.isOn(changing.next, '__switch_to');
      assert.deepEqual(changing.captureOf(changing.task).problemsOfState, [
        'was computing on CPU 1: its vector registers are lost',
      ]);
      // Newer kernels say that they are in memory before they are.
      changing.set('thread_info.flags', 1n << BigInt(TIF.needFpuLoad));
      assert.deepEqual(changing.captureOf(changing.task).problemsOfState, [
        'was having its vector registers saved by the kernel',
      ]);
    });

    test('has lost the key rights of the one before without stage zero, and of no other', () => {
      const changing = new Changing(release);
      const isLost = (): boolean[] => {
        const { kernel, running } = changing;
        const source = { kernel, running, liveCpus: new LiveCpus(kernel) };
        return [changing.taskView, changing.nextView].map((task) => hasLostRegisters(source, task));
      };
      changing.isOn(changing.next, '__switch_to');
      changing.live();
      assert.deepEqual(isLost(), [false, false]);
      changing.kernel.notes.splice(0);
      assert.deepEqual(isLost(), [true, false]);
    });

    test('has put down all of the one before when the next one is its current one', () => {
      for (const name of [...SWITCHES, ...BEGINNINGS]) {
        const changing = new Changing(release);
        changing.hasChanged(name);
        assert.deepEqual(changing.placeOf(changing.task), { onCpu: undefined, lost: undefined }, name);
        const { onCpu, lost } = changing.placeOf(changing.next);
        assert.deepEqual([onCpu?.cpu, lost], [name === '__switch_to' ? undefined : 1, undefined], name);
      }
    });

    test('tells nothing of the one before where it was doing something else', () => {
      const changing = new Changing(release);
      changing.hasChanged('memcpy');
      assert.equal(changing.placeOf(changing.task).lost, NOWHERE(4711));
    });

    test('tells nothing of one that says that it is on a CPU that does something else, or on none', () => {
      for (const cpu of [0, 2]) {
        const changing = new Changing(release);
        changing.hasChanged('finish_task_switch');
        changing.saysItIsOn(changing.task, cpu);
        assert.equal(changing.placeOf(changing.task).lost, NOWHERE(4711), `${cpu}`);
      }
    });

    test('tells nothing of two that both say that they are the one before', () => {
      const changing = new Changing(release);
      changing.hasChanged('finish_task_switch');
      const other = changing.newTask(4713, 1);
      changing.has([changing.task, changing.next, other]);
      assert.equal(changing.placeOf(changing.task).lost, NOWHERE(4711));
      assert.equal(changing.placeOf(other).lost, NOWHERE(4713));
    });

    test('tells nothing of the one before if the tasks cannot be read', () => {
      const changing = new Changing(release);
      changing.hasChanged('finish_task_switch');
      changing.set('signal', 0n);
      assert.equal(changing.placeOf(changing.task).lost, NOWHERE(4711));
    });

    test('tells nothing of the one before if another CPU cannot be read, which may have it', () => {
      const changing = new Changing(release);
      changing.hasChanged('finish_task_switch');
      changing.kernel.set('rq', changing.kernel.perCpu('runqueues', 0), 'curr', 0n);
      const hot = changing.kernel.symbolMaybe('pcpu_hot') ?? changing.kernel.symbol('current_task');
      changing.kernel.write(hot, Buffer.alloc(8));
      assert.equal(changing.placeOf(changing.task).lost, `${NOWHERE(4711)} (CPU 0 cannot be read)`);
    });

    test('tells nothing of the next one if it was on no stack of either, or is not known to be', () => {
      const elsewhere = new Changing(release);
      elsewhere.note({ sp: elsewhere.taskView.stack - 0x100n });
      assert.equal(elsewhere.placeOf(elsewhere.next).lost, NOWHERE(4712));
      const unknown = new Changing(release);
      unknown.kernel.cpuNotes.splice(0);
      assert.equal(unknown.placeOf(unknown.next).lost, NOWHERE(4712));
      assert.equal(
        unknown.placeOf(unknown.task).lost,
        'thread 4711 was on CPU 1, and nothing tells in what state',
      );
    });

    test('counts with the stack that it was on before an NMI', () => {
      const changing = new Changing(release);
      changing.isOn(changing.next);
      changing.panickedInNmi(0xffff_ffff_8123_4567n, true);
      assert.equal(changing.running.cpuOf.get(changing.next), 1);
      assert.equal(changing.running.switching.get(changing.task)?.part, 'leaving');
    });
  });
}
