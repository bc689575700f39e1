import { crc32 } from 'node:zlib';
import type { Protocol } from './conversation.ts';

const WINDOW = 8;
/** Milliseconds between two messages to somebody who waits for them. */
const MESSAGE_PACE = 100;
const LONGEST_PAYLOAD = 3000;

/** @returns what is wrong, if the lines are not the expected ones */
function expect(lines: readonly string[], ...expected: readonly string[]): string | undefined {
  const is = lines.join('\\n').slice(0, 100);
  return lines.length === expected.length && lines.every((line, i) => line === expected[i])
    ? undefined
    : `'${is}' instead of '${expected.join('\\n').slice(0, 100)}'`;
}

const bulk = (text: string): string[] => [`$${text.length}`, text];

/** A text of some length that follows from a name and a number. */
function payload(name: string, n: number): string {
  const length = 1 + ((Math.imul(n, 2_654_435_761) >>> 0) % LONGEST_PAYLOAD);
  return `${name}:${n}.`.repeat(Math.ceil(length / (name.length + 2))).slice(0, length);
}

/** Of the log of servers.py. `positions` gets the place of each entry that was acknowledged. */
export function logAppends(name: string, positions: number[], isEager: boolean): Protocol {
  return {
    name: `log ${name}`,
    request: (n) => `append ${name} ${n} ${payload(name, n)}\n`,
    lines: 1,
    judge(n, [line = '']) {
      const position = Number(line.split(' ')[2]);
      const before = positions.at(-1) ?? 0;
      positions.push(position);
      if (position <= before) return `'${line}' is at place ${position}, and the one before at ${before}`;
      return expect([line], `${name} ${n} ${position} ${payloadSum(name, n)}`);
    },
    window: WINDOW,
    ...(isEager ? {} : { pace: 20 }),
  };
}

/** What the log notes of an entry's payload. */
export function payloadSum(name: string, n: number): number {
  return crc32(payload(name, n));
}

/** Counts a key up, which is not there yet. */
export function redisIncr(key: string): Protocol {
  return {
    name: `redis incr ${key}`,
    request: () => `INCR ${key}\r\n`,
    lines: 1,
    judge: (n, lines) => expect(lines, `:${n}`),
    window: WINDOW,
  };
}

/** Puts numbers at the end of a list, which is not there yet. */
export function redisRpush(key: string): Protocol {
  return {
    name: `redis rpush ${key}`,
    request: (n) => `RPUSH ${key} ${n}\r\n`,
    lines: 1,
    judge: (n, lines) => expect(lines, `:${n}`),
    window: WINDOW,
    pace: 10,
  };
}

/** Publishes numbers; nobody or one hears them. */
export function redisPublish(channel: string): Protocol {
  return {
    name: `redis publish ${channel}`,
    request: (n) => `PUBLISH ${channel} ${n}\r\n`,
    lines: 1,
    judge: (_, [line = '']) => (/^:[01]$/.test(line) ? undefined : `'${line}' instead of ':1'`),
    window: WINDOW,
    pace: MESSAGE_PACE,
  };
}

/** Hears what is published. @param published how many messages that is */
export function redisSubscribe(channel: string, published: () => number): Protocol {
  return {
    name: `redis subscribe ${channel}`,
    greeting: `SUBSCRIBE ${channel}\r\n`,
    greetingLines: 6,
    request: () => '',
    lines: 7,
    judge: (n, lines) => expect(lines, '*3', ...bulk('message'), ...bulk(channel), ...bulk(String(n))),
    window: 0,
    due: published,
  };
}

/** Puts numbers into a list that somebody else takes them from. */
export function redisFeed(key: string): Protocol {
  return {
    name: `redis feed ${key}`,
    request: (n) => `RPUSH ${key} ${n}\r\n`,
    lines: 1,
    judge: (_, [line = '']) => (/^:\d+$/.test(line) ? undefined : `'${line}' instead of a length`),
    window: WINDOW,
    pace: MESSAGE_PACE,
  };
}

/** Waits for each of them. @param fed how many there are */
export function redisBlpop(key: string, fed: () => number): Protocol {
  return {
    name: `redis blpop ${key}`,
    request: () => `BLPOP ${key} 0\r\n`,
    lines: 5,
    judge: (n, lines) => expect(lines, '*2', ...bulk(key), ...bulk(String(n))),
    window: 1,
    due: fed,
  };
}

/** Counts up a key that is made first. */
export function memcachedIncr(key: string, isEager: boolean): Protocol {
  return {
    name: `memcached incr ${key}`,
    greeting: `set ${key} 0 0 1\r\n0\r\n`,
    greetingLines: 1,
    request: () => `incr ${key} 1\r\n`,
    lines: 1,
    judge: (n, lines) => expect(lines, String(n)),
    window: WINDOW,
    ...(isEager ? {} : { pace: 20 }),
  };
}
