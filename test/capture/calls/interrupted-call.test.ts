import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sentResult } from '../../../src/capture/calls/call-witness.ts';
import { type ResultOwner, writeResult } from '../../../src/capture/calls/interrupted-call.ts';
import type { UserRead } from '../../../src/linux/readers/user-memory.ts';
import { areaOf } from '../../criu/processes.ts';

describe('a result that is written to memory as well', () => {
  const known = sentResult({ bytes: 4096, start: 1n }, [3n, 4n, 0x7008n, 9999n]);
  const area = areaOf(0x7000, 1);
  const owner = (kind: typeof area.kind, read: UserRead['kind'] = 'bytes'): ResultOwner => ({
    vmas: [{ ...area, kind }],
    user: {
      read: (_, length) =>
        read === 'bytes'
          ? { kind: 'bytes', bytes: Buffer.alloc(length) }
          : { kind: 'unknown', why: 'it is on a disk' },
    },
    patches: [],
    findings: { reasons: [] },
  });

  it('is a patch of memory of its own', () => {
    const own = owner('anonymous');
    writeResult(known, { pid: 7 }, 'sendfile', own);
    assert.deepEqual(own.patches, [known.writes]);
    assert.deepEqual(own.findings.reasons, []);
  });

  it('costs the process where that memory is shared, or cannot be read', () => {
    for (const other of [owner('shared-memory'), owner('anonymous', 'unknown')]) {
      writeResult(known, { pid: 7 }, 'sendfile', other);
      assert.deepEqual(other.patches, []);
      assert.deepEqual(other.findings.reasons, [
        'thread 7 was in sendfile, and what it has done cannot be told to it',
      ]);
    }
  });
});
