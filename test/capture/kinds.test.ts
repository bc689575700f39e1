// Captures every process of the fixtures, most of all the one that holds a thing of each kind in the memory
// of NUMA node 1, and writes its images.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { unwrittenFiles } from '../../src/capture/files/content/write-back.ts';
import { captureProcesses } from '../../src/capture/index.ts';
import { writeImages } from '../../src/criu/images/index.ts';
import { SEGMENTS_CONTENT } from '../../src/criu/images/plan/segments.ts';
import type { OpenFile } from '../../src/model/file.ts';
import type { CaptureResult, ProcessGroup } from '../../src/model/group.ts';
import type { PageRuns } from '../../src/model/page-runs.ts';
import type { Process } from '../../src/model/process.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { openFixture, releases, truthOf } from '../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`a capture of ${release}`, () => {
    const kernel = openFixture(release);
    const { kinds, processes } = truthOf(release);
    const scratch = mkdtempSync(join(tmpdir(), 'otherworld-kinds-'));
    let result: CaptureResult;
    let group: ProcessGroup;

    const processOf = (pid: number): Process =>
      group.processes.find((process) => process.pid === pid) ?? assert.fail(`no process ${pid}`);
    const filesOf = <T extends OpenFile['type']>(type: T): Extract<OpenFile, { type: T }>[] => {
      const own = new Set(tableOf(kinds.pid).map(({ fileId }) => fileId));
      return group.files.files.filter(
        (file): file is Extract<OpenFile, { type: T }> => file.type === type && own.has(file.id),
      );
    };
    const tableOf = (pid: number) =>
      group.files.tables.find(({ filesId }) => filesId === processOf(pid).filesId)?.descriptors ?? [];
    const contentOf = (runs: PageRuns, length: number): string => {
      const content = Buffer.alloc(length);
      for (const { address, pages, physical } of runs) {
        content.set(
          kernel.physical.view(physical, pages * PAGE_SIZE).subarray(0, Math.max(0, length - address)),
          address,
        );
      }
      return content.toString('latin1');
    };

    before(() => {
      const roots = processes.map(({ pid }) => pid).filter((pid) => pid > 2);
      result = captureProcesses(kernel, { roots, includeDescendants: true });
      group = result.groups.find(({ id }) => id === kinds.pid) ?? assert.fail(JSON.stringify(result.refused));
    });
    after(() => rmSync(scratch, { recursive: true }));

    test('refuses whoever holds what cannot be kept, for that reason, and nobody else', () => {
      const reasons = new Map(result.refused.map(({ pid, reasons: own }) => [pid, own.join('\n')]));
      assert.deepEqual([...reasons.keys()], [kinds.seccomp]);
      // The fixture does not have the program of its filter.
      assert.match(reasons.get(kinds.seccomp) ?? '', /reading bpf_prog\.orig_prog/);
    });

    test('has both ends of the connection that a process has to itself, which fit each other', () => {
      const files = result.groups.find(({ id }) => id === kinds.tcp)?.files.files ?? [];
      const ends = files.filter((file) => file.type === 'inet').filter((file) => file.connection);
      const [one, other] = ends;
      assert.equal(ends.length, 2);
      assert.deepEqual([one?.sourcePort, one?.destinationPort], [other?.destinationPort, other?.sourcePort]);
      for (const [a, b] of [
        [one?.connection, other?.connection],
        [other?.connection, one?.connection],
      ]) {
        assert.equal(a?.receivedTo, b?.writtenTo);
        assert.deepEqual([a?.scale?.send, a?.hasSelectiveAcks], [b?.scale?.receive, true]);
        assert.ok((a?.timestamp ?? 0) > 0 && (a?.mssClamp ?? 0) > 10_000);
        assert.deepEqual([a?.unread.bytes, a?.unacknowledged.bytes], [0, 0]);
      }
      // The kernel asks nobody about a peer that comes back too.
      assert.ok(ends.every(({ lateOptions }) => lateOptions.every(({ name }) => name !== 'SO_KEEPALIVE')));
    });

    test('has the System V shared memory of the process that has some', () => {
      const owner = result.groups.find(({ processes: own }) => own.some(({ pid }) => pid === kinds.systemV));
      assert.equal(owner?.segments.length, 2);
    });

    test('has every user process that it does not refuse, under the threads that it had', () => {
      const captured = result.groups.flatMap((one) => one.processes);
      for (const { pid, threads } of processes.filter((process) => process.pid > 2)) {
        if (result.refused.some((refusal) => refusal.pid === pid)) continue;
        const process = captured.find((other) => other.pid === pid);
        assert.deepEqual(
          process?.threads.map(({ tid, comm }) => `${tid} ${comm}`).sort(),
          [...threads].sort(),
          `process ${pid}`,
        );
      }
    });

    test('has every descriptor of the process with a thing of each kind', () => {
      const files = processes.find(({ pid }) => pid === kinds.pid)?.files ?? [];
      assert.deepEqual(
        tableOf(kinds.pid).map(({ fd }) => fd),
        files.map((line) => Number(line.split(' ')[0])),
      );
      assert.ok(files.length > 45);
    });

    test('gives each area of memory where /proc had it', () => {
      const maps = processes.find(({ pid }) => pid === kinds.pid)?.maps ?? [];
      const areas = (processOf(kinds.pid).memory?.vmas ?? []).map(
        ({ start, end }) => `${start.toString(16)}-${end.toString(16)}`,
      );
      const expected = maps
        .filter((line) => !line.includes('[vsyscall]'))
        .map((line) => line.split(' ')[0]?.replaceAll(/\b0+(?=[0-9a-f])/g, ''));
      assert.deepEqual(areas, expected);
    });

    test('reads the page cache of a second node: deleted files, memfds, tmpfs, shared memory', () => {
      const deleted = group.files.ghosts.map(({ runs, identity }) => contentOf(runs, identity.sizeBytes));
      assert.deepEqual(deleted.sort(), [
        'deleted on tmpfs\n'.repeat(400),
        'deleted, and still open\n'.repeat(300),
      ]);
      const [memfd] = group.files.memfds;
      const content = group.sharedMemory.find(({ shmid }) => shmid === memfd?.shmid);
      assert.equal(
        contentOf(content?.runs ?? assert.fail(), memfd?.sizeBytes ?? 0),
        'memfd content\n'.repeat(1000),
      );
      assert.equal(memfd?.seals, 2);
      const file = group.files.filesToMake.find(({ path }) => path === '/tmp/file');
      assert.equal(contentOf(file?.runs ?? assert.fail(), 9000), 'on tmpfs\n'.repeat(1000));
      const shared = group.sharedMemory.filter(({ origin }) => origin === 'anonymous');
      assert.deepEqual(
        shared.map(({ sizeBytes, runs }) => [sizeBytes, runs.pages]),
        [[8 * PAGE_SIZE, 1]],
      );
      assert.match(contentOf(shared[0]?.runs ?? assert.fail(), 8 * PAGE_SIZE), /shared anonymous memory/);
    });

    test('keeps pages that nobody may touch (PROT_NONE) with their content', () => {
      const hidden = processOf(kinds.pid).memory?.vmas.filter(
        ({ prot, kind, runs }) => prot === 0 && kind === 'anonymous' && runs.pages > 0,
      );
      const contents = hidden?.map(({ start, runs }) =>
        [...runs].map((run) =>
          contentOf(
            {
              pages: run.pages,
              [Symbol.iterator]: () => [{ ...run, address: run.address - start }][Symbol.iterator](),
            },
            16,
          ),
        ),
      );
      assert.deepEqual(contents?.flat(), ['behind PROT_NONE']);
    });

    test('writes to the disk what had not been written, pages of a mapping included', () => {
      const problems: string[] = [];
      const dirty = [...unwrittenFiles(kernel, problems)].find(({ path }) => path === '/dirty');
      assert.deepEqual(problems, []);
      assert.ok(dirty !== undefined);
      const content = contentOf(dirty.dirty, 800 * 23);
      const expected = Buffer.from('dirty page of the disk\n'.repeat(800), 'latin1');
      expected.write('written through a mapping', PAGE_SIZE, 'latin1');
      assert.equal(content, expected.toString('latin1'));
    });

    test('has what is in pipes and between sockets, and who watches what', () => {
      const pipes = group.files.pipes.map(({ named, dataBytes, capacityBytes }) => [
        named,
        dataBytes,
        capacityBytes,
      ]);
      assert.deepEqual(
        pipes.sort((a, b) => Number(a[1]) - Number(b[1])),
        [
          [false, 10, 65536],
          [true, 10, 65536],
          [false, 12000, 131072],
        ].sort((a, b) => Number(a[1]) - Number(b[1])),
      );
      const watching = filesOf('eventpoll').find(({ targets }) => targets.length > 0);
      assert.deepEqual(
        watching?.targets.map(({ data }) => data),
        [0x1122334455667788n],
      );
      assert.equal(filesOf('unix').length, 11);
      assert.equal(filesOf('inet').length, 5);
    });

    test('has its counters, signals and timers', () => {
      assert.deepEqual(
        filesOf('eventfd').map(({ count }) => count),
        [42n],
      );
      assert.deepEqual(
        filesOf('signalfd').map(({ mask }) => mask),
        [1n << 9n],
      );
      const armed = filesOf('timerfd').map(({ clock, remainingNanoseconds, intervalNanoseconds }) => [
        clock,
        remainingNanoseconds > 0n,
        intervalNanoseconds / 1_000_000_000n,
      ]);
      assert.deepEqual(armed, [
        [1, true, 7n],
        [0, true, 0n],
        [7, false, 0n],
        [0, false, 0n],
      ]);
      assert.equal(processOf(kinds.stopped).state, 'stopped');
      assert.equal(processOf(kinds.zombie).state, 'zombie');
    });

    test('is written as images, with every page that it says it has', () => {
      for (const one of result.groups) {
        const directory = join(scratch, String(one.id));
        const isLarge = one.processes.some(({ comm }) => comm === 'guest-program');
        // The pages of the second one are not in the fixtures.
        if (isLarge || one.id === kinds.tcp) continue;
        const { pagesBytes, files } = writeImages(one, kernel.physical, directory);
        const stored = files
          .filter((name) => /^pages-\d+\.img$/.test(name) || name === SEGMENTS_CONTENT)
          .reduce((sum, name) => sum + readFileSync(join(directory, name)).length, 0);
        assert.ok(stored > 0 && stored === pagesBytes, `${stored} of ${pagesBytes}`);
      }
    });
  });
}
