import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, it, mock } from 'node:test';
import { x86_64 } from '../../src/arch/x86-64/index.ts';
import { coreHeaders } from '../../src/elf-core/headers.ts';
import { CoreWriteError, NoCoreError, writeCore } from '../../src/elf-core/index.ts';
import { threadsInspection } from '../../src/inspect/threads.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { UserMemory } from '../../src/linux/readers/user-memory.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { parseNotes } from '../../src/system/elf.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { VmcoreError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { walkUserPages } from '../../src/vmcore/page-table.ts';
import { openFixture, releases, scratch, truthOf, withoutPage } from '../vmcore/fixtures.ts';

let cores = 0;
const newPath = (): string => scratch(`core-${cores++}`);

function readelf(option: string, path: string): string {
  const env = { ...process.env, LC_ALL: 'C' };
  return execFileSync('readelf', ['-W', option, path], { encoding: 'utf8', env, maxBuffer: 2 ** 26 });
}

interface Load {
  readonly offset: number;
  readonly start: number;
  readonly fileBytes: number;
  readonly memoryBytes: number;
  readonly flags: string;
}

/** The LOAD segments as readelf sees them. */
function loadsOf(path: string): Load[] {
  const line = /^ {2}LOAD +(0x\w+) (0x\w+) 0x\w+ (0x\w+) (0x\w+) ([RWE ]{3})/gm;
  return [...readelf('-l', path).matchAll(line)].map(([, ...found]) => {
    const [offset = 0, start = 0, fileBytes = 0, memoryBytes = 0] = found.map(Number);
    return { offset, start, fileBytes, memoryBytes, flags: found[4] ?? '' };
  });
}

/** What a debugger would find at an address. */
function pageAt(core: Buffer, loads: readonly Load[], address: number): Buffer | undefined {
  const load = loads.find(({ start, fileBytes }) => address >= start && address < start + fileBytes);
  if (load === undefined) return undefined;
  const at = load.offset + address - load.start;
  return core.subarray(at, at + PAGE_SIZE);
}

function mmOf(kernel: Kernel, pid: number) {
  return kernel.bind(mmStruct).at(taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n).mm);
}

for (const release of releases) {
  const kernel = openFixture(release);
  const truth = truthOf(release);
  const { pid } = truth.program;

  describe(`a core out of ${release}`, () => {
    const path = newPath();
    const written = writeCore(kernel, pid, path);

    it('is one for other programs, readable by its owner only', () => {
      const header = readelf('-h', path);
      assert.match(header, /Type: +CORE/);
      assert.match(header, /Machine: +Advanced Micro Devices X86-64/);
      assert.equal(statSync(path).mode & 0o777, 0o600);
      assert.equal(statSync(path).size, written.sizeBytes);
      assert.ok(statSync(path).blocks * 512 < written.sizeBytes / 4, 'has holes');
    });

    it("has the areas that the guest's own /proc gave, with their permissions", () => {
      const loads = loadsOf(path);
      const maps = truth.processes.find((process) => process.pid === pid)?.maps ?? [];
      let next = 0;
      for (const line of maps.filter((one) => !one.endsWith('[vsyscall]'))) {
        const [, start = '', end = '', r = '', w = '', x = ''] = /^(\w+)-(\w+) (.)(.)(.)/.exec(line) ?? [];
        const flags = `${r === 'r' ? 'R' : ' '}${w === 'w' ? 'W' : ' '}${x === 'x' ? 'E' : ' '}`;
        let at = Number.parseInt(start, 16);
        for (; at < Number.parseInt(end, 16); next++) {
          const load = loads[next];
          assert.deepEqual([load?.start, load?.flags], [at, flags], line);
          at += load?.memoryBytes ?? 0;
        }
        assert.equal(at, Number.parseInt(end, 16), line);
      }
      assert.equal(next, loads.length);
    });

    it('has notes of all threads and of the process in the order of the kernel', () => {
      const kinds = [...readelf('-n', path).matchAll(/\tNT_(\w+)/g)].map(([, kind]) => kind);
      const ofThread = ['FPREGSET', 'X86_XSTATE'];
      assert.deepEqual(kinds, [
        ...['PRSTATUS', 'PRPSINFO', 'AUXV', 'FILE', ...ofThread],
        ...['PRSTATUS', ...ofThread],
        ...['PRSTATUS', ...ofThread],
      ]);
    });

    it('has the registers, the signals and the names of each', () => {
      const core = readFileSync(path);
      const notes = parseNotes(core.subarray(Number(core.readBigUInt64LE(64 + 8)), PAGE_SIZE * 64));
      const threads = threadsInspection(kernel, pid).json() as { threads: { tid: number; userIp: string }[] };
      const status = notes.filter(({ type }) => type === 1).map(({ description }) => description);
      const ip = 8 * x86_64.notes.names.indexOf('ip') + x86_64.notes.registers;
      assert.deepEqual(
        status.map((description) => [
          description.readInt32LE(32),
          `0x${description.readBigUInt64LE(ip).toString(16)}`,
        ]),
        threads.threads.map(({ tid, userIp }) => [tid, userIp]),
      );
      assert.equal(status[0]?.readUInt16LE(12), 0, 'no signal has ended it');
      const info = notes.find(({ type }) => type === 3)?.description;
      assert.equal(info?.toString('latin1', 40, 53), 'guest-program');
      assert.match(info?.toString('latin1', 56) ?? '', /^\/guest-program/);
      assert.equal(info?.toString('latin1', 1, 2), 'S');
      const files = notes.find(({ name, type }) => name === 'CORE' && type === 0x46494c45)?.description;
      assert.match(files?.toString('latin1') ?? '', /\0\/guest-program\0.*\0\/tmp\/gone \(deleted\)\0$/s);
      const state = notes.find(({ name }) => name === 'LINUX')?.description;
      assert.equal((state?.readBigUInt64LE(464) ?? 0n) & 7n, 7n, 'x87, SSE and AVX');
      assert.equal(state?.readUInt16LE(0), 0x37f);
    });

    it('says what is not there, and has nothing in its place', () => {
      const { pages, missing } = written;
      assert.ok(pages.notInDump > 0);
      assert.deepEqual(missing, [`${pages.notInDump} pages are not in the dump`]);
      const there = loadsOf(path).reduce((sum, { fileBytes }) => sum + fileBytes, 0);
      assert.equal(there, (pages.memory + pages.zeros) * PAGE_SIZE);
    });

    it('has the memory that the process had, and zeros where it has touched nothing', () => {
      const { pid: kinds } = truth.kinds;
      const whole = newPath();
      const { missing, pages } = writeCore(kernel, kinds, whole);
      assert.deepEqual(missing, []);
      const [core, loads] = [readFileSync(whole), loadsOf(whole)];
      const memory = new UserMemory(kernel, mmOf(kernel, kinds));
      let compared = 0;
      for (const { start, fileBytes } of loads) {
        for (let at = start; at < start + fileBytes; at += PAGE_SIZE) {
          const read = memory.read(BigInt(at), PAGE_SIZE);
          // The vDSO is the kernel's.
          if (read.kind !== 'bytes') continue;
          assert.ok(read.bytes.equals(pageAt(core, loads, at) ?? Buffer.of()), at.toString(16));
          compared++;
        }
      }
      assert.ok(compared >= pages.memory + pages.zeros - 2);
    });

    it('begins with the thread that was asked for', () => {
      const tid = written.threads[1]?.tid ?? 0;
      const other = writeCore(kernel, tid, newPath());
      assert.deepEqual([other.pid, other.threads[0]?.tid, other.threads.length], [pid, tid, 3]);
    });

    it('is made of a process that cannot be brought back', () => {
      for (const refused of [truth.kinds.tcp, truth.kinds.seccomp, truth.kinds.stopped]) {
        assert.equal(writeCore(kernel, refused, newPath()).threads.length, 1);
      }
    });

    it('leaves out a page that the dump does not have, and what leads there if that is missing', () => {
      const { kinds } = truth;
      const mm = mmOf(kernel, kinds.pid);
      const stack = Math.floor(mm.start_stack / PAGE_SIZE) * PAGE_SIZE;
      const [run] = walkUserPages(kernel, mm.pgd, stack, stack + PAGE_SIZE);
      const path = newPath();
      const { missing } = writeCore(withoutPage(release, (run?.pfn ?? 0) * PAGE_SIZE), kinds.pid, path);
      assert.deepEqual(missing, ['1 page is not in the dump']);
      assert.equal(pageAt(readFileSync(path), loadsOf(path), stack), undefined);
      assert.notEqual(pageAt(readFileSync(path), loadsOf(path), stack - PAGE_SIZE), undefined);

      const table = kernel.memory.userTable(mm.pgd).root;
      const lost = writeCore(withoutPage(release, table), kinds.pid, newPath());
      assert.equal(lost.threads.length, 4);
      assert.match(lost.missing.join(), /^\d+ pages cannot be found/);
    });

    it('is not made of what has no memory', () => {
      const path = newPath();
      assert.throws(
        () => writeCore(kernel, truth.kinds.zombie, path),
        (error) => error instanceof NoCoreError && /has ended \(a zombie\)/.test(error.message),
      );
      assert.throws(() => writeCore(kernel, 2, path), /process 2 \(kthreadd\) is a kernel thread/);
      assert.throws(() => writeCore(kernel, 4000, path), VmcoreError);
      assert.equal(existsSync(path), false);
    });
  });
}

describe('a core that cannot be written', () => {
  const kernel = openFixture('debian13');
  const { pid } = truthOf('debian13').kinds;

  it('is not there, and the message names it', () => {
    const path = newPath();
    const write = mock.method(kernel.physical, 'writeRuns', () => 0);
    try {
      assert.throws(
        () => writeCore(kernel, pid, path),
        (error) => error instanceof CoreWriteError && error.message.startsWith(`${path}: 0 of `),
      );
    } finally {
      write.mock.restore();
    }
    assert.equal(existsSync(path), false);
    assert.throws(() => writeCore(kernel, pid, `${path}/core`), /\/core cannot be written: ENOENT/);
  });

  it('takes the place of no other file', () => {
    const path = newPath();
    writeFileSync(path, 'mine');
    assert.throws(() => writeCore(kernel, pid, path), CoreWriteError);
    assert.equal(readFileSync(path, 'utf8'), 'mine');
  });
});

describe('the headers of a core', () => {
  it('count more segments than their own field can', () => {
    const path = newPath();
    const segments = Array.from({ length: 70_000 }, (_, i) => ({
      ...{ start: i * 2 * PAGE_SIZE, flags: 6, fileBytes: 0, memoryBytes: PAGE_SIZE },
    }));
    writeFileSync(path, coreHeaders(x86_64, Buffer.alloc(0), segments));
    assert.match(readelf('-h', path), /Number of program headers: +65535 \(70001\)/);
    assert.equal(loadsOf(path).length, 70_000);
  });
});
