import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type BootLimits, readBootLimits } from '../../config/boot-limits.ts';
import { RLIM_INFINITY, setLimit as setLimitOf } from '../../system/process-settings.ts';
import { messageOf } from '../../system/thrown.ts';
import { required, step } from './stage-list.ts';
import type { TakenBack } from './take-back.ts';

function numberOf(text: string): bigint {
  return /^\d+$/.test(text) ? BigInt(text) : RLIM_INFINITY;
}

/** Each number of `now`, or the one of `then` if that is greater; undefined if none is. */
export function raised(now: readonly string[], then: readonly string[]): bigint[] | undefined {
  if (now.length !== then.length) return undefined;
  const [old, wanted] = [now.map(numberOf), then.map(numberOf)];
  const both = old.map((value, i) => ((wanted[i] ?? 0n) > value ? (wanted[i] ?? 0n) : value));
  return both.some((value, i) => value !== old[i]) ? both : undefined;
}

/**
 * Gives this system the limits that it had when it was armed, where those of now are lower: the crash kernel
 * derived its own from the memory that was reserved for it. systemd derives from them how many threads a
 * service may have.
 * @param proc where /proc is
 * @param setLimit sets a limit of process 1
 * @returns a sentence for each that could not be set
 */
export function raiseBootLimits(
  then: BootLimits,
  proc = '/proc',
  setLimit: (resource: number, soft: bigint, hard: bigint) => void = setForProcess1,
): string[] {
  const now = readBootLimits(proc);
  const attempt = (what: string, set: () => void): string[] => {
    try {
      set();
      return [];
    } catch (error) {
      return [`${what} stays as the crash kernel has set it: ${messageOf(error)}`];
    }
  };
  const sysctls = Object.entries(then.sysctls).flatMap(([name, text]) => {
    const values = raised((now.sysctls[name] ?? '').split(' '), text.split(' '));
    if (values === undefined || now.sysctls[name] === undefined) return [];
    return attempt(name.replaceAll('/', '.'), () => writeFileSync(join(proc, 'sys', name), values.join(' ')));
  });
  const rlimits = Object.entries(then.rlimits).flatMap(([resource, limit]) => {
    const [soft, hard] = raised(now.rlimits[resource] ?? [], limit) ?? [];
    if (soft === undefined || hard === undefined) return [];
    return attempt(`limit ${resource} of process 1`, () => setLimit(Number(resource), soft, hard));
  });
  return [...sysctls, ...rlimits];
}

function setForProcess1(resource: number, soft: bigint, hard: bigint): void {
  setLimitOf(1, resource, { soft, hard });
}

/**
 * Whether what the limits were derived from is there again. None of them gives away more than a fifth of
 * the memory (udp_mem, net/ipv4/udp.c), so with more than half of it each leaves most of what there is.
 * With less, those of before would let the system run out of memory.
 */
function isMostThere({ bytes, ofBytes }: TakenBack): boolean {
  return bytes * 2 > ofBytes;
}

/** Left out where no old memory could be taken back: the report has that already. */
export const bootLimitsStep = step({
  name: 'boot-limits',
  needs: { takenBack: required<TakenBack>() },
  run: ({ takenBack }, { manifest: { bootLimits }, report }) => {
    if (!isMostThere(takenBack)) {
      const [bytes, of] = [takenBack.bytes, takenBack.ofBytes].map((size) => Math.floor(size / 2 ** 20));
      report.notes.push(
        `limits stay as the crash kernel has set them: ${bytes} of ${of} MiB of old memory are taken back`,
      );
      return;
    }
    try {
      if (bootLimits !== undefined) report.notes.push(...raiseBootLimits(bootLimits));
    } catch (error) {
      report.notes.push(`limits stay as the crash kernel has set them: ${messageOf(error)}`);
    }
  },
});
