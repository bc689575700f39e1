import assert from 'node:assert/strict';
import { test } from 'node:test';
import { roomInBrief } from '../../src/check/brief.ts';
import { type Machine, machineOnce } from '../../src/check/machine.ts';
import { defaultConfig } from '../../src/config/config.ts';

test('a command looks at this machine once, for all that it says in brief', () => {
  let looks = 0;
  const machine = machineOnce((): Machine => {
    looks++;
    return { isArmed: false, hasStageZero: false, criu: undefined, config: defaultConfig() };
  });
  roomInBrief(machine);
  roomInBrief(machine);
  assert.equal(looks, 1);
});
