// Panics at random moments in the middle of the traffic between servers of a guest and clients outside of it,
// which keep a record of all that they sent and got. Takes hours, so only a whole run has it;
// OTHERWORLD_TRAFFIC_PANICS says how many panics there are, OTHERWORLD_TRAFFIC_SEED which.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runTrafficCampaign } from '../../lab/campaign/traffic/campaign.ts';
import { stderrProgress } from '../../lab/progress.ts';
import { testGuestPrefix } from '../../lab/test-run.ts';
import { isWhole, release } from './harness.ts';

const panics = Number(process.env.OTHERWORLD_TRAFFIC_PANICS ?? 20);
const seed = Number(process.env.OTHERWORLD_TRAFFIC_SEED ?? Date.now() % 2 ** 31);

test(`no acknowledged write is lost and none is repeated after ${panics} panics under traffic with ${release}`, {
  skip: !isWhole,
}, async (t) => {
  t.diagnostic(`OTHERWORLD_TRAFFIC_SEED=${seed}`);
  const guest = `${testGuestPrefix(process.env.OTHERWORLD_TEST_RUN ?? String(process.pid))}tr-${release[0]}`;
  const outcomes = await runTrafficCampaign({ guest, release, panics, seed }, stderrProgress(), (outcome) =>
    t.diagnostic(JSON.stringify(outcome)),
  );
  const bad = outcomes.flatMap(({ incident, evidence, talks }) =>
    talks
      .filter(({ fate, faults }) => fate === 'lost' || faults.length > 0)
      .map((talk) => ({ incident, evidence, ...talk })),
  );
  assert.deepEqual(bad, []);
  assert.ok(outcomes.some(({ talks }) => talks.some(({ fate }) => fate === 'kept')));
});
