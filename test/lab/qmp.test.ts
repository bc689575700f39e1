import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LabError } from '../../lab/error.ts';
import { openQmp } from '../../lab/qmp.ts';

test("where QEMU's control socket is not, that is said", async () => {
  await assert.rejects(openQmp('/nonexistent/qmp'), (error: unknown) => {
    assert.ok(error instanceof LabError);
    assert.match(error.message, /control socket: connect ENOENT/);
    return true;
  });
});
