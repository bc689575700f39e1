import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Status } from '../../src/arm/status.ts';
import { describeArmed } from '../../src/cli/arm.ts';
import { isWell, namesOf, print } from '../../src/cli/status.ts';
import { defaultConfig } from '../../src/config/config.ts';

const NO_PROBLEM = {
  ...{ problem: undefined, tmpfsProblem: undefined, rateProblem: undefined, unknown: undefined },
};
const LOST = 'processes that compute on a CPU at a panic would be lost: the processor has no XSAVE';

test('protected processes of one name are told apart by what they were started with', () => {
  const process = (pid: number, comm: string, commandLine?: string) => ({ pid, comm, commandLine });
  const long = `postgres: walsender ${'x'.repeat(100)}`;
  assert.deepEqual(
    namesOf([
      process(1, 'postgres', 'postgres: checkpointer'),
      process(2, 'postgres', long),
      process(3, 'sh', 'sh -c x'),
    ]),
    ['postgres: checkpointer (1)', `${long.slice(0, 60)} (2)`, 'sh (3)'],
  );
  assert.deepEqual(namesOf([process(1, 'a'), process(2, 'a')]), ['a (1)', 'a (2)']);
});

test('status says in one line which computing processes would be lost, and nothing if none', () => {
  const status: Status = {
    ...{ kernel: '6.12.0', state: 'armed', hint: undefined, armedAt: undefined, rules: [], ruleProblems: [] },
    mayLose: [],
    ...{ reservedBytes: 320 * 2 ** 20, neededBytes: 255 * 2 ** 20, reclaimableBytes: undefined },
    images: { directory: '/images', neededBytes: 2 ** 20, tmpfsBytes: 0, freeBytes: 2 ** 30, ...NO_PROBLEM },
    ...{ isAtWork: false, memoryProblem: undefined, encryptionProblem: undefined, lostComputing: undefined },
  };
  const memory =
    'memory: 320 MiB reserved, 255 MiB needed\n' +
    'images: 1 MiB needed after a panic, and up to 0 MiB for files on tmpfs, 1024 MiB free for /images';
  const protection = 'nothing is protected: otherworld protect';
  assert.equal(print(status), ['armed for 6.12.0', memory, protection].join('\n'));
  const lossy = print({ ...status, lostComputing: LOST });
  assert.equal(lossy, ['armed for 6.12.0', memory, LOST, protection].join('\n'));
  assert.ok(isWell(status));
  assert.match(
    print({ ...status, mayLose: ['connections'] }),
    /^all of it may lose connections \(\[losses\] of the configuration\)$/m,
  );
  const [first] = print({ ...status, state: 'not armed', isAtWork: true }).split('\n');
  assert.match(first ?? '', /^not armed .* \(an otherworld that arms or builds is at work now\)$/);
  const encryptionProblem = 'memory encryption is on (SME or SEV): such memory cannot be read';
  const encrypted: Status = { ...status, encryptionProblem };
  assert.equal(print(encrypted), ['armed for 6.12.0', memory, encryptionProblem, protection].join('\n'));
  assert.equal(isWell(encrypted), false);
  const full: Status = { ...status, images: { ...status.images, problem: 'images need 2 MiB' } };
  assert.equal(print(full), ['armed for 6.12.0', memory, protection, 'images need 2 MiB'].join('\n'));
  assert.equal(isWell(full), false);
  const lost: Status = { ...status, images: { ...status.images, tmpfsProblem: 'files would be lost' } };
  assert.equal(print(lost), ['armed for 6.12.0', memory, protection, 'files would be lost'].join('\n'));
  assert.ok(isWell(lost));
  const sizes = { neededBytes: undefined, tmpfsBytes: undefined, freeBytes: undefined };
  const unknown: Status = { ...status, images: { ...status.images, ...sizes, unknown: 'cannot be told' } };
  const without = [memory.split('\n')[0], protection, 'cannot be told'];
  assert.equal(print(unknown), ['armed for 6.12.0', ...without].join('\n'));
});

test('arm says in one line which computing processes would be lost, and nothing if none', () => {
  const manifest = {
    ...{ version: 1 as const, release: '6.12.0', unchecked: false, bootId: '', armedAt: '' },
    ...{ reservedBytes: 320 * 2 ** 20, ranges: [], config: defaultConfig(), rules: [] },
  };
  const armed = { manifest, neededBytes: 255 * 2 ** 20 };
  const said = 'armed for 6.12.0: 320 MiB reserved, 255 MiB needed';
  assert.equal(describeArmed({ ...armed, lacking: {} }), said);
  const lacking = { stageZero: 'the processor has no XSAVE' };
  assert.equal(describeArmed({ ...armed, lacking }), `${said}\n${LOST}`);
});
