import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { ownerOf } from '../../src/capture/private-directory.ts';
import {
  findSandboxes,
  Homes,
  namespaceProblems,
  type SandboxRequest,
  wantedSandboxes,
} from '../../src/capture/sandboxes.ts';
import { taskGroup } from '../../src/capture/tasks.ts';
import { defaultConfig } from '../../src/config/config.ts';
import { ipcIdsStruct, ipcNamespaceStruct } from '../../src/linux/ipc-namespace.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { adviceFor } from '../../src/report/advice.ts';
import { releases } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

const INITIAL = 0x1000n;
const [WEB, OTHER, CONTAINER] = [0x2000n, 0x3000n, 0x4000n];

function serviceOf(cgroup: string): string | undefined {
  return cgroup.endsWith('.service') ? cgroup.slice(1) : undefined;
}

test('a private directory has the name of the unit that it was made for', () => {
  const root = (name: string): string => `/x/systemd-private-${'0a'.repeat(16)}-${name}-aB3xYz/tmp`;
  assert.equal(ownerOf(root('web@1-a.service')), 'web@1-a.service');
  assert.equal(ownerOf(root('web.service').slice(2)), 'web.service');
  assert.equal(ownerOf('/tmp'), undefined);
});

for (const release of releases) {
  suite(`sandboxes of ${release}`, () => {
    class Made {
      readonly kernel = new MadeKernel(release);
      readonly tasks: bigint[] = [];
      readonly #root = this.kernel.allocate('kernfs_node');
      readonly #names = this.kernel.allocate('page');
      #namesEnd = 0;

      constructor() {
        const nsproxy = this.kernel.allocate('nsproxy');
        this.kernel.set('nsproxy', nsproxy, 'mnt_ns', INITIAL);
        this.kernel.symbols.set('init_nsproxy', nsproxy);
      }

      /** A process in a mount namespace, and in a cgroup below the root. */
      add(pid: number, namespace: bigint, cgroup: string, ipc = 0n): void {
        const { kernel } = this;
        const make = (name: string) => kernel.allocate(name);
        const [task, signal, nsproxy] = [make('task_struct'), make('signal_struct'), make('nsproxy')];
        const [set, group, node] = [make('css_set'), make('cgroup'), make('kernfs_node')];
        const name = this.#names + BigInt(this.#namesEnd);
        kernel.write(name, Buffer.from(`${cgroup}\0`));
        this.#namesEnd += cgroup.length + 1;
        kernel.set('kernfs_node', node, 'name', name);
        kernel.set('kernfs_node', node, 'parent', this.#root);
        kernel.set('cgroup', group, 'kn', node);
        kernel.set('css_set', set, 'dfl_cgrp', group);
        kernel.set('nsproxy', nsproxy, 'mnt_ns', namespace);
        kernel.set('nsproxy', nsproxy, 'ipc_ns', ipc);
        const head = kernel.memberAddress('signal_struct', signal, 'thread_head');
        const link = kernel.memberAddress('task_struct', task, 'thread_node');
        kernel.set('signal_struct', signal, 'thread_head.next', link);
        kernel.set('signal_struct', signal, 'thread_head.prev', link);
        kernel.set('task_struct', task, 'thread_node.next', head);
        kernel.set('task_struct', task, 'thread_node.prev', head);
        const members = { pid, tgid: pid, mm: 1n, cgroups: set, nsproxy, signal };
        for (const [member, value] of Object.entries(members)) kernel.set('task_struct', task, member, value);
        this.tasks.push(task);
      }

      find(isComplete = true) {
        const list = { tasks: this.tasks, lost: [], damage: [], isComplete };
        return findSandboxes(this.kernel, list, serviceOf);
      }

      /** What the namespaces of the last process are as reasons, by what was asked for. */
      problems(request: SandboxRequest | undefined): string[] {
        const list = { tasks: this.tasks, lost: [], damage: [], isComplete: true };
        const task = taskAt(this.kernel, this.tasks.at(-1) ?? assert.fail());
        return namespaceProblems(this.kernel, wantedSandboxes(this.kernel, list, request), task);
      }

      homes(): Homes {
        const groups = this.tasks.map((task) => taskGroup(this.kernel, taskAt(this.kernel, task)));
        return new Homes(groups, this.find(), this.kernel);
      }
    }

    test('are the mount namespaces that have all processes of one service, and nobody else', () => {
      const made = new Made();
      made.add(1, INITIAL, 'init.scope');
      made.add(10, WEB, 'web.service');
      made.add(11, WEB, 'web.service');
      made.add(20, CONTAINER, 'docker.scope');
      // One of a service's processes has made a namespace of its own.
      made.add(30, OTHER, 'split.service');
      made.add(31, INITIAL, 'split.service');
      const sandboxes = made.find();
      assert.deepEqual(
        [INITIAL, WEB, OTHER, CONTAINER].map((namespace) => sandboxes.unitOf(namespace)),
        [undefined, 'web.service', undefined, undefined],
      );
      made.add(40, WEB, 'user.slice');
      assert.equal(made.find().unitOf(WEB), undefined);
    });

    test('are none where somebody else may be in them', () => {
      const made = new Made();
      made.add(10, WEB, 'web.service');
      assert.equal(made.find().unitOf(WEB), 'web.service');
      assert.equal(made.find(false).unitOf(WEB), undefined);
    });

    test('are as good as none if the configuration does not want them', () => {
      const made = new Made();
      made.add(10, WEB, 'web.service');
      const refused = ['is in a mnt namespace of its own'];
      assert.deepEqual(made.problems({ sandboxes: 'refuse', serviceOf }), refused);
      assert.deepEqual(made.problems(undefined), refused);
      assert.match(adviceFor(refused[0] ?? '') ?? '', /sandboxes = "refuse"/);
      const { sandboxes } = defaultConfig().services;
      assert.deepEqual(made.problems({ sandboxes, serviceOf }), []);
      // Of a container's nothing is wanted.
      made.add(20, CONTAINER, 'docker.scope');
      assert.deepEqual(made.problems({ sandboxes: 'restore', serviceOf }), refused);
    });

    test('may have an IPC namespace, with nothing in it', () => {
      const made = new Made();
      const ipc = made.kernel.allocate('ipc_namespace');
      made.add(10, WEB, 'web.service', ipc);
      const request = { sandboxes: 'restore', serviceOf } as const;
      assert.deepEqual(made.problems(request), []);
      assert.ok(made.problems(undefined).includes('is in a ipc namespace of its own'));
      made.kernel.set('ipc_namespace', ipc, 'mq_queues_count', 2);
      const reason = 'is in a ipc namespace of its own, which has 2 System V objects or message queues';
      assert.deepEqual(made.problems(request), [reason]);
      const { ids } = made.kernel.bind(ipcNamespaceStruct).at(ipc);
      made.kernel.set('ipc_ids', ids + BigInt(2 * made.kernel.bind(ipcIdsStruct).size), 'in_use', 1);
      assert.deepEqual(made.problems(request), [reason.replace('2', '3')]);
      assert.deepEqual(made.homes().of([10]), { namespace: WEB, unit: 'web.service', uts: undefined, ipc });
      made.add(11, WEB, 'web.service');
      assert.equal(made.homes().of([10, 11]), 'several');
    });

    test('are those of a group only if all of it is in one', () => {
      const made = new Made();
      made.add(10, WEB, 'web.service');
      made.add(11, WEB, 'web.service');
      made.add(20, INITIAL, 'plain.service');
      const homes = made.homes();
      assert.deepEqual(homes.of([10, 11]), {
        namespace: WEB,
        unit: 'web.service',
        uts: undefined,
        ipc: undefined,
      });
      assert.equal(homes.of([20]), undefined);
      assert.equal(homes.of([10, 20]), 'several');
      assert.match(homes.reason([10, 20]), /another sandbox: 10 \(web\.service\), 20 \(in none\)$/);
    });
  });
}
