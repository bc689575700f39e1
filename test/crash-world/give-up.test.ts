import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { latestIncident, loadReport } from '../../src/report/incident.ts';
import { printReport, styleFor } from '../../src/report/print.ts';

const SCRIPT = join(import.meta.dirname, '../../src/crash-world/give-up.sh');
const directory = mkdtempSync(join(tmpdir(), 'otherworld-give-up-'));
after(() => rmSync(directory, { recursive: true }));

test('where no program of ours runs, a shell writes an incident that can be read, with the reason', () => {
  const [run, incidents] = [join(directory, 'run'), join(directory, 'incidents')];
  mkdirSync(join(run, 'payload'), { recursive: true });
  writeFileSync(join(run, 'init.log'), 'mount: no such device\n');
  for (const [name, content] of [
    ['system-node', '/nonexistent/node'],
    ['system-modules', '/nonexistent'],
    ['reserved-bytes', '335544320'],
  ] as const) {
    writeFileSync(join(run, 'payload', name), `${content}\n`);
  }
  const reason = 'the "runtime"\nis not \\mounted \x1b[31m';
  const env = { ...process.env, OTHERWORLD_RUN: run, OTHERWORLD_INCIDENTS: incidents };
  execFileSync('sh', [SCRIPT, reason], { env });
  const id = latestIncident(incidents);
  assert.ok(id !== undefined);
  const report = loadReport(id, incidents);
  assert.equal(report.state, 'abandoned');
  assert.deepEqual(report.errors, ['the runtime is not mounted [31m']);
  assert.equal(report.memory.reservedBytes, 335_544_320);
  assert.match(report.notes.join(), /dead kernel's log/);
  assert.equal(readFileSync(join(incidents, id, 'crash-world.log'), 'utf8'), 'mount: no such device\n');
  assert.match(printReport(report, styleFor(false)), /the machine rebooted into its ordinary system/);
});
