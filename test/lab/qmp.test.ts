import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

test('where QEMU has ended, each command fails, the later ones too', { timeout: 20_000 }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-qmp-'));
  const path = join(directory, 'qmp');
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.write('{"QMP": {}}\n');
    // Ends at the second command.
    socket.once('data', () => {
      socket.write('{"return": {}}\n');
      socket.once('data', () => socket.destroy());
    });
  });
  t.after(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const qmp = await openQmp(path);
  for (const command of ['stop', 'cont'])
    await assert.rejects(qmp.execute(command), /QEMU's control socket: /, command);
});
