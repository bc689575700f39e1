/**
 * How a search for what breaks a reader is run. By itself it takes the same cases each time: a run of the
 * tests tells of a change, not of luck. `OTHERWORLD_FUZZ_RUNS=5000 node --test FILE` searches among others.
 * @param runs cases of an ordinary run
 */
export function searchOf(runs: number): { numRuns: number; seed?: number } {
  const { OTHERWORLD_FUZZ_RUNS } = process.env;
  return OTHERWORLD_FUZZ_RUNS === undefined
    ? { numRuns: runs, seed: 1 }
    : { numRuns: Number(OTHERWORLD_FUZZ_RUNS) };
}
