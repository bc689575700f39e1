import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { suite, test } from 'node:test';
import { namespaceDifferences, namespaceOf } from '../../../src/crash-world/sandbox/own-namespaces.ts';
import { inNamespacesOf } from '../../../src/system/namespaces.ts';

const isRoot = process.geteuid?.() === 0;
const QUEUES = '/proc/sys/fs/mqueue/queues_max';

suite('the UTS and IPC namespaces of a new sandbox', { skip: isRoot ? false : 'needs root' }, () => {
  const during = async (
    namespaces: readonly string[],
    use: (pid: number) => void,
    first = 'true',
  ): Promise<void> => {
    const script = `${first} && echo ready && exec sleep 1000`;
    const child: ChildProcess = spawn('unshare', [...namespaces, 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    try {
      if (child.stdout !== null) await once(child.stdout, 'data');
      use(child.pid ?? 0);
    } finally {
      child.kill('SIGKILL');
    }
  };
  const ipc = { 'fs/mqueue/queues_max': '7', 'kernel/sem': '1 2 3 4' };
  const settings = "echo 7 >/proc/sys/fs/mqueue/queues_max && echo '1 2 3 4' >/proc/sys/kernel/sem";
  const hostName = { node: 'web', domain: 'org' };
  const named = 'echo web >/proc/sys/kernel/hostname && echo org >/proc/sys/kernel/domainname';

  test("are as they were, or the system's own", async () => {
    await during(['--mount'], (pid) => assert.deepEqual(namespaceDifferences({}, pid), []));
    await during(
      ['--mount', '--ipc', '--uts'],
      (pid) => assert.deepEqual(namespaceDifferences({ ipc, hostName }, pid), []),
      `${settings} && ${named}`,
    );
  });

  test('are looked at though the /proc of the sandbox has no settings', async () => {
    await during(
      ['--mount', '--ipc', '--uts'],
      (pid) => {
        assert.throws(() => inNamespacesOf(pid, () => readFileSync(QUEUES)), /ENOENT/);
        assert.deepEqual(namespaceDifferences({ ipc, hostName }, pid), []);
      },
      `${settings} && ${named} && mount -t proc -o subset=pid proc /proc`,
    );
  });

  test('differ if one has settings that it had not, or is none', async () => {
    await during(
      ['--mount', '--ipc', '--uts'],
      (pid) => {
        assert.deepEqual(namespaceDifferences({ ipc: { ...ipc, 'kernel/sem': '1 2 3 5' }, hostName }, pid), [
          'its sandbox has kernel.sem 1 2 3 4 now, and had 1 2 3 5',
        ]);
        assert.deepEqual(namespaceDifferences({ ipc, hostName: { ...hostName, node: 'x' } }, pid), [
          'its sandbox has kernel.hostname web now, and had x',
        ]);
        assert.deepEqual(namespaceDifferences({ hostName }, pid), [
          'its sandbox has a ipc namespace of its own now, and had none',
        ]);
      },
      `${settings} && ${named}`,
    );
    await during(['--mount'], (pid) =>
      assert.deepEqual(namespaceDifferences({ ipc, hostName }, pid), [
        'its sandbox has no uts namespace of its own now, and had one',
        'its sandbox has no ipc namespace of its own now, and had one',
      ]),
    );
  });

  test('are entered and left with the mount namespace', async () => {
    const before = [namespaceOf('self', 'ipc'), readFileSync(QUEUES, 'utf8')];
    await during(
      ['--mount', '--ipc'],
      (pid) => {
        const inside = inNamespacesOf(pid, () => readFileSync(QUEUES, 'utf8'));
        assert.equal(inside, '7\n');
      },
      settings,
    );
    assert.deepEqual([namespaceOf('self', 'ipc'), readFileSync(QUEUES, 'utf8')], before);
  });
});
