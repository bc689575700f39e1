import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { checkPressure } from '../../../src/capture/files/pressure.ts';
import { fmode } from '../../../src/linux/file.ts';

suite('files that tell of pressure', () => {
  const open = (name: string, path: string, f_mode: number): string => {
    try {
      checkPressure({ f_mode }, { path, fileSystem: { name } });
      return 'opened again';
    } catch (error) {
      return String(error);
    }
  };
  const both = fmode.read | fmode.write;

  test('are refused where they are open for writing: they may have a trigger', () => {
    const why = 'open for writing, and may have a trigger for pressure (PSI) there';
    const own = '/sys/fs/cgroup/system.slice/a.service/memory.pressure';
    assert.equal(open('cgroup2', own, both), `FileRefusal: has ${own} ${why}`);
    assert.equal(open('proc', '/proc/pressure/io', both), `FileRefusal: has /proc/pressure/io ${why}`);
  });

  test('are opened again where they are read, and so are others', () => {
    assert.equal(open('proc', '/proc/pressure/memory', fmode.read), 'opened again');
    assert.equal(open('cgroup2', '/sys/fs/cgroup/cgroup.pressure', both), 'opened again');
    assert.equal(open('ext4', '/srv/pressure/memory', both), 'opened again');
  });
});
