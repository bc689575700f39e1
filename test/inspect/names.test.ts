import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { listFiles } from '../../src/inspect/files.ts';
import { allMapsInspection, mapsInspection } from '../../src/inspect/maps.ts';
import { psInspection } from '../../src/inspect/ps.ts';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { dentryStruct } from '../../src/linux/dcache.ts';
import { fileStruct } from '../../src/linux/fs.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { textToBytes } from '../../src/system/byte-text.ts';
import { openFixture, openPatched, releases, truthOf } from '../vmcore/fixtures.ts';

for (const release of releases) {
  const healthy = openFixture(release);
  const { pid } = truthOf(release).program;
  const task = taskAt(healthy, findTaskByPid(healthy, pid) ?? 0n);
  const comm = task.address + BigInt(healthy.layouts.member('task_struct', 'comm')?.offsetBytes ?? 0);
  const named = (address: bigint, bytes: Buffer) =>
    openPatched(release, [{ physical: healthy.memory.translate(address), bytes }]);

  describe(`names of ${release} that are not ASCII`, () => {
    it('are read and shown as what they are', () => {
      const kernel = named(comm, Buffer.from('naïve 😀\0'));
      assert.equal(taskAt(kernel, task.address).comm, 'naïve 😀');
      assert.match(psInspection(kernel).text(), /naïve 😀$/m);
    });

    it('are kept byte for byte, and shown in an own way, where they end within a character', () => {
      const bytes = Buffer.from('éééééééé').subarray(0, 15);
      const kernel = named(comm, Buffer.concat([bytes, Buffer.alloc(1)]));
      assert.deepEqual(textToBytes(taskAt(kernel, task.address).comm), bytes);
      assert.equal(listProcesses(kernel).rows.find((row) => row.pid === pid)?.comm, "$'ééééééé\\xc3'");
    });

    it('do not take away the maps and files of who has a file of that name', () => {
      const program = healthy.bind(fileStruct).at(healthy.bind(mmStruct).at(task.mm).exe_file);
      const { d_nameAddress } = healthy.bind(dentryStruct).at(program.f_dentry);
      const kernel = named(d_nameAddress, Buffer.from([0xff]));
      const report = mapsInspection(kernel, pid);
      const shown = mapsInspection(healthy, pid)
        .text()
        .replaceAll('/guest-program', () => "$'/\\xffuest-program'");
      assert.equal(report.text(), shown);
      assert.deepEqual(report.problems, []);
      assert.match(allMapsInspection(kernel).text(), /\$'\/\\xffuest-program'/);
      assert.deepEqual(listFiles(kernel, pid), listFiles(healthy, pid));
    });
  });
}
