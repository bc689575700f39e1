// System V semaphores in a kernel made by hand: who they come back with, what of them, and who cannot have
// them again.

import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { waitActivity } from '../../../src/capture/calls/served-wait.ts';
import type { CaptureContext } from '../../../src/capture/files/context.ts';
import { semaphores, semaphoresOfGroup } from '../../../src/capture/ipc/semaphores.ts';
import type { SemaphoreSet } from '../../../src/model/semaphore-set.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { MadeProcesses, makeList } from '../made-processes.ts';

const [ONE, TWO, OUTSIDER] = [100, 101, 102];
const ID = 5 * 32768;
const COUNT = 3;
const SET = `the System V semaphore set ${ID}`;

for (const release of releases) {
  suite(`System V semaphores of ${release}`, () => {
    class Made {
      readonly kernel = new MadeKernel(release);
      readonly processes: MadeProcesses;
      readonly #protected: readonly number[];
      readonly set: bigint;
      readonly #undos: bigint[] = [];
      #context: CaptureContext | undefined;

      /** One set of three semaphores, which nobody has used. */
      constructor(own: readonly number[] = [ONE, TWO]) {
        const { kernel } = this;
        this.#protected = own;
        this.processes = new MadeProcesses(kernel, [...own, OUTSIDER]);
        const namespace = kernel.allocate('ipc_namespace');
        kernel.symbols.set('init_ipc_ns', namespace);
        this.set = kernel.allocate('sem_array');
        const entry = kernel.memberAddress('sem_array', this.set, 'sem_perm');
        kernel.set('ipc_namespace', namespace, 'ids[0].ipcs_idr.idr_rt.xa_head', entry);
        const members = { id: ID, key: 0x8f57_0001, uid: 3, gid: 4, cuid: 1, cgid: 2, mode: 0o640 };
        for (const [name, value] of Object.entries(members)) this.setSet(`sem_perm.${name}`, value);
        this.setSet('sem_nsems', COUNT);
        for (const list of ['pending_alter', 'pending_const', 'list_id'])
          makeList(kernel, kernel.memberAddress('sem_array', this.set, list));
        for (let i = 0; i < COUNT; i++)
          for (const list of ['pending_alter', 'pending_const'])
            makeList(kernel, kernel.memberAddress('sem', this.semaphore(i), list));
      }

      semaphore(i: number): bigint {
        const first = this.kernel.memberAddress('sem_array', this.set, 'sems');
        return first + BigInt(i * this.kernel.sizeOf('sem'));
      }

      setSet(member: string, value: bigint | number): void {
        this.kernel.set('sem_array', this.set, member, value);
      }

      runsAs(pid: number, uid: number): void {
        const cred = this.kernel.allocate('cred');
        this.kernel.set('cred', cred, 'euid.val', uid);
        this.kernel.set('cred', cred, 'group_info', this.kernel.allocate('group_info'));
        this.kernel.set('task_struct', this.processes.taskOf(pid), 'real_cred', cred);
      }

      /** As if a process had changed a semaphore to this value last. */
      changed(i: number, value: number, pid: number | undefined, time = 0): void {
        this.kernel.set('sem', this.semaphore(i), 'semval', value);
        const number = pid === undefined ? 0n : this.processes.pidOf(pid);
        this.kernel.set('sem', this.semaphore(i), 'sempid', number);
        this.kernel.set('sem', this.semaphore(i), 'sem_otime', time);
      }

      /** As if a process had a list of what is to be undone, with this for the set; the list. */
      undoes(pid: number, adjustments: readonly number[], setNumber = ID): bigint {
        const { kernel } = this;
        const list = kernel.allocate('sem_undo_list');
        const undo = kernel.allocate('sem_undo');
        const isPart = kernel.layouts.member('sem_undo', 'semadj')?.kind === 'array';
        const behind = undo + BigInt(kernel.sizeOf('sem_undo'));
        const numbers = isPart ? kernel.memberAddress('sem_undo', undo, 'semadj') : behind;
        if (!isPart) kernel.set('sem_undo', undo, 'semadj', numbers);
        kernel.write(numbers, Buffer.from(new Int16Array(adjustments).buffer));
        kernel.set('sem_undo', undo, 'semid', setNumber);
        kernel.set('sem_undo', undo, 'ulp', list);
        makeList(kernel, kernel.memberAddress('sem_undo_list', list, 'list_proc'), [
          kernel.memberAddress('sem_undo', undo, 'list_proc'),
        ]);
        if (setNumber === ID) {
          this.#undos.push(kernel.memberAddress('sem_undo', undo, 'list_id'));
          makeList(kernel, kernel.memberAddress('sem_array', this.set, 'list_id'), this.#undos);
        }
        this.shares(list, this.processes.taskOf(pid));
        return list;
      }

      /** Has these tasks share a list of what is to be undone. */
      shares(list: bigint, ...tasks: readonly bigint[]): void {
        this.kernel.set('sem_undo_list', list, 'refcnt.refs.counter', tasks.length);
        for (const task of tasks) this.kernel.set('task_struct', task, 'sysvsem.undo_list', list);
      }

      /** As if processes waited for a semaphore. */
      waits(i: number, ...pids: readonly number[]): void {
        const { kernel, processes } = this;
        const nodes = pids.map((pid) => {
          const queue = kernel.allocate('sem_queue');
          const members = { pid: processes.pidOf(pid), sleeper: processes.taskOf(pid), nsops: 1 };
          for (const [name, value] of Object.entries(members)) kernel.set('sem_queue', queue, name, value);
          return kernel.memberAddress('sem_queue', queue, 'list');
        });
        makeList(kernel, kernel.memberAddress('sem', this.semaphore(i), 'pending_alter'), nodes);
      }

      get context(): CaptureContext {
        if (this.#context !== undefined) return this.#context;
        this.#context = this.processes.context(this.#protected);
        semaphores.collect(this.#context);
        return this.#context;
      }

      group(...pids: readonly number[]): SemaphoreSet[] {
        const nothing = { namespace: 0n, files: [], pathFiles: [], shmids: new Set<number>(), paths: [] };
        return semaphoresOfGroup({ context: this.context, pids: new Set(pids), ...nothing });
      }

      reasonsOf(pid: number): readonly string[] {
        return this.context.refusals.get(pid) ?? [];
      }
    }

    test('come back with who changed them last, waits for them, or has something to undo', () => {
      const made = new Made();
      made.changed(0, 4, ONE, 1_700_000_000);
      made.changed(1, 0, undefined);
      made.changed(2, 32767, OUTSIDER);
      made.undoes(TWO, [-1, 0, 32767]);
      made.waits(1, ONE, TWO);
      assert.deepEqual(made.context.edges, [{ pids: [ONE, TWO], why: 'a System V semaphore set' }]);
      assert.deepEqual(made.group(TWO), [
        {
          ...{ id: ID, key: 0x8f57_0001, uid: 3, gid: 4, cuid: 1, cgid: 2, mode: 0o640 },
          semaphores: [
            { value: 4, lastPid: ONE },
            { value: 0, lastPid: undefined },
            { value: 32767, lastPid: undefined },
          ],
          isUsed: true,
          undos: [
            { pid: TWO, semaphore: 0, adjustment: -1 },
            { pid: TWO, semaphore: 2, adjustment: 32767 },
          ],
        },
      ]);
      assert.deepEqual([...made.context.refusals], []);
      for (const pid of [ONE, TWO]) {
        assert.deepEqual(made.context.notes.get(pid), [
          `${SET} has the times of its restore (sem_otime, sem_ctime)`,
          `${SET} no longer tells that ${OUTSIDER} changed it last (GETPID)`,
          `those who wait for ${SET} may get it in another order`,
          `${SET} was used by PID ${OUTSIDER} () as well, which is not protected`,
        ]);
      }
      assert.deepEqual(semaphores.losses(made.context), []);
    });

    test('are unused as long as nobody has made an operation on them', () => {
      const made = new Made();
      made.changed(0, 1, ONE);
      assert.deepEqual(
        made.group(ONE).map(({ isUsed, undos }) => [isUsed, undos]),
        [[false, []]],
      );
    });

    test('are lost if no protected process uses them, or if who does is left behind', () => {
      const made = new Made();
      made.changed(0, 1, OUTSIDER);
      assert.deepEqual(made.group(ONE, TWO), []);
      assert.deepEqual(semaphores.losses(made.context), [`${SET} of user 3 went with the kernel`]);
      const other = new Made();
      other.changed(0, 1, ONE);
      assert.deepEqual(semaphores.losses(other.context), [`${SET} of user 3 went with the kernel`]);
      other.group(ONE);
      assert.deepEqual(semaphores.losses(other.context), []);
    });

    test('are told of to others of the same user, who are without them if their users do not come back', () => {
      const [owner, maker, stranger] = [103, 104, 105];
      const made = new Made([ONE, owner, maker, stranger]);
      for (const [pid, uid] of Object.entries({ [ONE]: 3, [owner]: 3, [maker]: 1, [stranger]: 7 }))
        made.runsAs(Number(pid), uid);
      made.changed(0, 1, ONE);
      const note = `${SET} of its user comes back only with ${ONE}`;
      assert.deepEqual(
        [owner, maker, stranger].map((pid) => made.context.notes.get(pid)),
        [[note], [note], undefined],
      );
      assert.ok(!made.context.notes.get(ONE)?.includes(note));
      assert.deepEqual(made.context.edges.flatMap(({ pids }) => pids).includes(owner), false);
    });

    test('are undone by all threads of a process together, or refused', () => {
      const made = new Made();
      const list = made.undoes(ONE, [1, 0, 0]);
      made.shares(list, made.processes.taskOf(ONE), made.processes.addThread(ONE, 110));
      assert.deepEqual(made.group(ONE)[0]?.undos, [{ pid: ONE, semaphore: 0, adjustment: 1 }]);
      const one = new Made();
      one.undoes(ONE, [1, 0, 0]);
      one.processes.addThread(ONE, 110);
      const together = `is undone by others than the threads of ${ONE} together (CLONE_SYSVSEM)`;
      assert.deepEqual(one.reasonsOf(ONE), [
        `uses ${SET}, which ${together}`,
        `has System V semaphores to undo: the set ${ID} ${together}`,
      ]);
      const two = new Made();
      two.shares(two.undoes(ONE, [1, 0, 0]), two.processes.taskOf(ONE), two.processes.taskOf(TWO));
      for (const pid of [ONE, TWO])
        assert.match(two.reasonsOf(pid).join(), /which is undone by 100 and 101 together \(CLONE_SYSVSEM\)/);
      const outside = new Made();
      const shared = outside.undoes(ONE, [1, 0, 0]);
      outside.shares(shared, outside.processes.taskOf(ONE), outside.processes.taskOf(OUTSIDER));
      assert.match(outside.reasonsOf(ONE).join(), /which is undone by others than the threads of 100/);
    });

    test('are refused if a process would change them at its end that is not protected, and not if it only waits for them', () => {
      const made = new Made();
      made.changed(0, 1, ONE);
      made.undoes(OUTSIDER, [1, 0, 0]);
      const why = 'a process that is not protected would have changed at its end (SEM_UNDO)';
      assert.deepEqual(made.reasonsOf(ONE), [`uses ${SET}, which ${why}`]);
      const nothing = new Made();
      nothing.changed(0, 1, ONE);
      nothing.undoes(OUTSIDER, [0, 0, 0]);
      assert.deepEqual(nothing.reasonsOf(ONE), []);
      const waiting = new Made();
      waiting.changed(0, 1, ONE);
      waiting.waits(0, OUTSIDER);
      assert.deepEqual(waiting.reasonsOf(ONE), []);
      assert.match(
        waiting.context.notes.get(ONE)?.join('\n') ?? '',
        /was used by PID 102 \(\) as well, which is not protected/,
      );
    });

    test('that are removed, or changed by nothing, are nothing to undo', () => {
      const made = new Made();
      made.undoes(ONE, [1, 0, 0], -1);
      made.undoes(TWO, [0, 0, 0]);
      assert.deepEqual([...made.context.refusals], []);
      assert.deepEqual(made.group(ONE, TWO), []);
    });

    test('that are not found, or do not know of it, are refused to who has to undo something', () => {
      const made = new Made();
      made.undoes(ONE, [1, 0, 0], 7);
      assert.deepEqual(made.reasonsOf(ONE), [
        'has System V semaphores to undo: the set 7 is not found in the initial IPC namespace',
      ]);
      const unknown = new Made();
      unknown.changed(0, 1, ONE);
      unknown.undoes(ONE, [1, 0, 0]);
      makeList(unknown.kernel, unknown.kernel.memberAddress('sem_array', unknown.set, 'list_id'));
      assert.deepEqual(unknown.reasonsOf(ONE), [
        `has System V semaphores to undo: the set ${ID} does not know of it`,
      ]);
    });

    test('are refused if they were being changed, or the kernel contradicts itself about them', () => {
      const cases: [RegExp, (made: Made) => void][] = [
        [/which was being changed$/, (made) => made.setSet('sem_perm.lock.rlock.raw_lock.val.counter', 1)],
        [
          /which was being changed$/,
          (made) => made.kernel.set('sem', made.semaphore(2), 'lock.rlock.raw_lock.val.counter', 1),
        ],
        [
          /is damaged: it counts 1 operations that wait, and has 0/,
          (made) => made.setSet('complex_count', 1),
        ],
        [/cannot be read: /, (made) => made.setSet('pending_alter.next', 8)],
        [/cannot be read: /, (made) => made.setSet('list_id.next', 8)],
        [/is damaged: a semaphore has the value 40000/, (made) => made.changed(1, 40_000, TWO)],
        [/is damaged: a semaphore has the value -1/, (made) => made.changed(1, -1, TWO)],
      ];
      for (const [reason, damage] of cases) {
        const made = new Made();
        made.changed(0, 1, ONE);
        damage(made);
        assert.match(made.reasonsOf(ONE).join(), reason);
        assert.deepEqual(made.group(ONE, TWO), []);
      }
    });

    test('that cannot be read are told of', () => {
      const made = new Made();
      made.changed(0, 1, ONE);
      made.setSet('sem_nsems', 100_000);
      assert.match(semaphores.losses(made.context).join(), /cannot be read: .* has 100000 semaphores/);
    });

    test('may be had already by who sleeps and waits for them no longer', () => {
      const made = new Made();
      made.waits(0, ONE);
      const activityOf = (pid: number, call: string, activity: 'asleep' | 'running', cpu?: number) =>
        waitActivity(made.kernel, { task: { address: made.processes.taskOf(pid) }, cpu }, call, [], activity);
      for (const call of ['semop', 'semtimedop', 'msgrcv']) {
        assert.equal(activityOf(ONE, call, 'asleep'), 'asleep');
        assert.equal(activityOf(TWO, call, 'asleep'), 'running');
        // It was woken, and has not run.
        assert.equal(activityOf(ONE, call, 'running'), 'asleep');
        assert.equal(activityOf(ONE, call, 'running', 1), 'running');
      }
      assert.equal(activityOf(TWO, 'msgsnd', 'asleep'), 'asleep');
      assert.equal(activityOf(ONE, 'read', 'running'), 'running');
    });
  });
}
