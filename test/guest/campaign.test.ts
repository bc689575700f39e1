// Panics at random moments of guests with 4 CPUs that build, compress and compute: whatever comes back has to
// come to the right result. Takes hours, so only a whole run has it; OTHERWORLD_CAMPAIGN_PANICS says how many
// there are, OTHERWORLD_CAMPAIGN_SEED which.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runComputingCampaign } from '../../lab/campaign/computing.ts';
import { stderrProgress } from '../../lab/progress.ts';
import { testGuestPrefix } from '../../lab/test-run.ts';
import { isWhole, release } from './harness.ts';

const panics = Number(process.env.OTHERWORLD_CAMPAIGN_PANICS ?? 20);
const seed = Number(process.env.OTHERWORLD_CAMPAIGN_SEED ?? Date.now() % 2 ** 31);

test(`no result is wrong after ${panics} panics of a busy machine with ${release}`, {
  skip: !isWhole,
}, async (t) => {
  t.diagnostic(`OTHERWORLD_CAMPAIGN_SEED=${seed}`);
  const guest = `${testGuestPrefix(process.env.OTHERWORLD_TEST_RUN ?? String(process.pid))}campaign`;
  const outcomes = await runComputingCampaign({ guest, release, panics, seed }, stderrProgress(), (outcome) =>
    t.diagnostic(JSON.stringify(outcome)),
  );
  const jobs = outcomes.flatMap((outcome) => Object.entries(outcome.jobs).map((job) => ({ job, outcome })));
  const bad = jobs.filter(
    ({ job: [, result], outcome }) =>
      result === 'wrong' ||
      result === 'not finished' ||
      (result === 'ended without a result' && outcome.inDoubt.length === 0),
  );
  assert.deepEqual(bad, []);
  assert.ok(jobs.some(({ job: [, result] }) => result === 'right'));
});
