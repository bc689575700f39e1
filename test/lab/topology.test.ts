import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { sizeArguments } from '../../lab/topology.ts';

suite('memory and CPUs of a guest', () => {
  test("are QEMU's plain ones without NUMA", () => {
    assert.deepEqual(sizeArguments(2048, 2, {}), ['-m', '2048', '-smp', '2']);
  });

  test('are divided among nodes in whole memory blocks, to the last MiB and CPU', () => {
    const words = sizeArguments(2000, 5, { numaNodes: 2 }).join(' ');
    assert.match(words, /id=node0,size=896M .*nodeid=0,memdev=node0,cpus=0-1/);
    assert.match(words, /id=node1,size=1104M .*nodeid=1,memdev=node1,cpus=2-4/);
  });
});
