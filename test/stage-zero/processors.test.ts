import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  answerTicks,
  type CpuInfo,
  madtApicIds,
  parseCpuInfo,
  processorObstacle,
  stageZeroCpus,
  xsaveBytes,
} from '../../src/stage-zero/processors.ts';

/** An entry of type 0, Processor Local APIC. */
function localApic(id: number, flags = 1): Buffer {
  const entry = Buffer.from([0, 8, 0, id, 0, 0, 0, 0]);
  entry.writeUInt32LE(flags, 4);
  return entry;
}

/** An entry of type 9, Processor Local x2APIC. */
function localX2Apic(id: number, flags = 1): Buffer {
  const entry = Buffer.alloc(16);
  entry.set([9, 16]);
  entry.writeUInt32LE(id, 4);
  entry.writeUInt32LE(flags, 8);
  return entry;
}

/** An entry of type 1, I/O APIC, whose id must not be taken for a processor's. */
const ioApic = Buffer.from([1, 12, 0, 77, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);

function madt(...entries: readonly Buffer[]): Buffer {
  return Buffer.concat([Buffer.alloc(44, 0x41), ...entries]);
}

/** /proc/cpuinfo of processors with these ids. */
function cpuInfoText(apicIds: readonly number[], flags: string, megahertz = '2400.000'): string {
  const blocks = apicIds.map(
    (id, i) =>
      `processor\t: ${i}\nmodel name\t: flags : 1\ncpu MHz\t\t: ${megahertz}\napicid\t\t: 99\n` +
      `initial apicid\t: ${id}\nfpu\t\t: yes\nflags\t\t: ${flags}\nvmx flags\t: tdx_guest\n`,
  );
  return blocks.join('\n');
}

function info(apicIds: readonly number[], flags = 'lm xsave', megahertz?: string): CpuInfo {
  return parseCpuInfo(cpuInfoText(apicIds, flags, megahertz));
}

suite('the firmware’s table of processors', () => {
  test('has those that are enabled, of both kinds, in its order', () => {
    const table = madt(
      localApic(4),
      ioApic,
      localApic(1, 0),
      localX2Apic(300),
      localApic(0),
      localX2Apic(7, 2),
    );
    assert.deepEqual(madtApicIds(table), [4, 300, 0]);
  });

  test('has no processor whose id is everybody’s', () => {
    assert.deepEqual(madtApicIds(madt(localApic(255), localX2Apic(0xffff_ffff), localX2Apic(256))), [256]);
  });

  test('is read as far as it is whole', () => {
    assert.deepEqual(madtApicIds(madt(localApic(3), localX2Apic(9)).subarray(0, -1)), [3]);
    assert.deepEqual(madtApicIds(madt(localApic(3), Buffer.from([0, 0]), localApic(4))), [3]);
    assert.deepEqual(madtApicIds(madt(localApic(3), Buffer.from([0, 1]), localApic(4))), [3]);
    assert.deepEqual(madtApicIds(madt(Buffer.from([0, 4, 0, 5]), localApic(4))), [4]);
    assert.deepEqual(madtApicIds(Buffer.alloc(10)), []);
  });
});

suite('/proc/cpuinfo', () => {
  test('tells the ids that the processors themselves have, flags and rate', () => {
    const { apicIds, flags, megahertz } = info([0, 2, 300], 'fpu lm xsave la57', '3693.061');
    assert.deepEqual(apicIds, [0, 2, 300]);
    assert.deepEqual([...flags], ['fpu', 'lm', 'xsave', 'la57']);
    assert.equal(megahertz, 3693.061);
  });

  test('may tell none of it', () => {
    const { apicIds, megahertz } = parseCpuInfo('processor : 0\n');
    assert.deepEqual([apicIds, megahertz], [[], undefined]);
    assert.equal(info([0], 'lm', '0.000').megahertz, undefined);
  });
});

suite('the processors to be saved', () => {
  const boots = (cpus: ReturnType<typeof stageZeroCpus>): number[] =>
    cpus.filter(({ isBoot }) => isBoot).map(({ apicId }) => apicId);

  test('are those online and those that the firmware has, each once', () => {
    const cpus = stageZeroCpus(
      info([0, 2]),
      madt(localApic(0), localApic(1), localApic(2), localX2Apic(300)),
    );
    assert.deepEqual(
      cpus.map(({ apicId }) => apicId),
      [0, 2, 1, 300],
    );
    assert.deepEqual(boots(cpus), [0]);
  });

  test('have the first one online as boot processor where there is no table', () => {
    assert.deepEqual(boots(stageZeroCpus(info([6, 0, 2]), undefined)), [6]);
  });

  test('spare the firmware’s first one as well, in a kernel that began on another after a panic', () => {
    const table = madt(localApic(0), localApic(1), localApic(2));
    assert.deepEqual(boots(stageZeroCpus(info([1, 2]), table)), [1, 0]);
  });
});

suite('limits', () => {
  test('of time are longer in a virtual machine, and never shorter for a processor that idles', () => {
    assert.equal(answerTicks(info([0], 'lm xsave', '800.000')), 100_000_000);
    assert.equal(answerTicks(info([0], 'lm xsave', '6000.000')), 120_000_000);
    assert.equal(answerTicks(info([0], 'lm xsave hypervisor', '1000.000')), 1_000_000_000);
    assert.equal(answerTicks(info([0], 'lm xsave hypervisor', '0.000')), 5_000_000_000);
    assert.equal(answerTicks(info([0], 'lm xsave', '0.000')), 100_000_000);
  });

  test('of room depend on AMX, and allow for alignment', () => {
    assert.equal(xsaveBytes(info([0])), 2816);
    const amx = xsaveBytes(info([0], 'lm xsave amx_tile'));
    // XTILEDATA: 8 KiB from 2816 on (CPUID leaf 0Dh of every processor that has it).
    assert.ok(amx >= 2816 + 8192 && amx % 64 === 0);
  });
});

suite('stage zero cannot work', () => {
  test('without XSAVE, or where nobody can be named', () => {
    assert.equal(processorObstacle(info([0], 'lm')), 'the processor has no XSAVE');
    assert.equal(processorObstacle(info([0], 'xsave')), 'the processor has no XSAVE');
    const nobody = { ...info([0]), apicIds: [] };
    assert.equal(processorObstacle(nobody), '/proc/cpuinfo does not tell the APIC ids of the processors');
    assert.equal(processorObstacle(info([0])), undefined);
  });

  test('in a confidential virtual machine of Intel', () => {
    const guest = processorObstacle(info([0], 'lm xsave tdx_guest hypervisor'));
    assert.match(guest ?? '', /confidential virtual machine/);
    assert.equal(processorObstacle(info([0], 'lm xsave hypervisor')), undefined);
  });
});
