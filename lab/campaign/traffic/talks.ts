import { BulkStream, Downloads } from './bulk.ts';
import { type Conversation, type Protocol, Requests } from './conversation.ts';
import * as protocols from './protocols.ts';
import { faultsOfCount, faultsOfSequence, firstOf } from './sequence.ts';
import * as state from './server-state.ts';

/** The servers of the guest, and their ports there. */
export const SERVER_PORTS = { log: 7101, stream: 7102, redis: 6379, memcached: 11211, nginx: 80 } as const;
export type ServerName = keyof typeof SERVER_PORTS;
export const serverNames = Object.keys(SERVER_PORTS) as ServerName[];

/** A conversation with a server, and how the record of it is compared with what the server has. */
export interface Talk {
  readonly server: ServerName;
  readonly conversation: Conversation;
  /** Whose requests are what makes this one go on. */
  readonly source?: Conversation;
  /**
   * @param isKept whether a conversation went on
   * @returns what is wrong: writes that are lost, repeated or reordered, bytes that are other
   */
  compare(isKept: (conversation: Conversation) => boolean): Promise<string[]>;
}

/** The ports of this host that lead to the servers. */
export type Ports = Readonly<Record<ServerName, number>>;

const nothing = async (): Promise<string[]> => [];

async function requests(
  ports: Ports,
  server: ServerName,
  protocol: Protocol,
  compare: (made: Requests) => Promise<string[]>,
): Promise<Talk> {
  const conversation = await Requests.to(ports[server], protocol);
  return { server, conversation, compare: () => compare(conversation) };
}

/** Two that append without a pause, two with one. */
export async function logTalks(ports: Ports): Promise<Talk[]> {
  const talks: Talk[] = [];
  for (const [i, isEager] of [true, true, false, false].entries()) {
    const name = `log${i}`;
    const positions: number[] = [];
    const protocol = protocols.logAppends(name, positions, isEager);
    talks.push(
      await requests(ports, 'log', protocol, async ({ asked, answered }) =>
        faultsOfLog(await state.readLog(ports.log), name, positions, answered, asked),
      ),
    );
  }
  return talks;
}

/**
 * Compares the log with one client's record.
 * @param positions where its entries are, by the answers, from 1 on
 */
export function faultsOfLog(
  entries: readonly state.LogEntry[],
  name: string,
  positions: readonly number[],
  acknowledged: number,
  sent: number,
): string[] {
  const own = entries.filter((entry) => entry.name === name);
  const other = own.filter(({ n, sum }) => n >= 1 && n <= sent && sum !== protocols.payloadSum(name, n));
  const moved = positions.flatMap((position, i) => {
    const entry = entries[position - 1];
    if (entry?.name === name && entry.n === i + 1) return [];
    return [`write ${i + 1} is not at place ${position}, where its answer says that it is`];
  });
  return [
    ...faultsOfSequence(
      own.map(({ n }) => n),
      acknowledged,
      sent,
    ),
    ...firstOf(other.map(({ n }) => `write ${n} has other bytes than were sent`)),
    ...firstOf(moved),
  ];
}

async function redisTalks(ports: Ports): Promise<Talk[]> {
  const { redis } = ports;
  const talk = (protocol: Protocol, compare: (made: Requests) => Promise<string[]>): Promise<Talk> =>
    requests(ports, 'redis', protocol, compare);
  const talks: Talk[] = [];
  for (const key of ['count0', 'count1']) {
    const compare = async ({ answered, asked }: Requests): Promise<string[]> =>
      faultsOfCount(await state.readRedisCount(redis, key), answered, asked);
    talks.push(await talk(protocols.redisIncr(key), compare));
  }
  for (const key of ['list0', 'list1']) {
    const compare = async ({ answered, asked }: Requests): Promise<string[]> =>
      faultsOfSequence(await state.readRedisList(redis, key), answered, asked);
    talks.push(await talk(protocols.redisRpush(key), compare));
  }
  const publisher = await talk(protocols.redisPublish('channel'), nothing);
  const published = (): number => publisher.conversation.asked;
  const subscriber = await talk(protocols.redisSubscribe('channel', published), nothing);
  talks.push(publisher, { ...subscriber, source: publisher.conversation });
  const feed = await Requests.to(redis, protocols.redisFeed('queue'));
  const taker = await talk(
    protocols.redisBlpop('queue', () => feed.asked),
    nothing,
  );
  const compareQueue: Talk['compare'] = async (isKept) => {
    const left = await state.readRedisList(redis, 'queue');
    const { conversation } = taker;
    const all = takenAndLeft(conversation.answered, left, isKept(conversation));
    return faultsOfSequence(all, feed.answered, feed.asked);
  };
  const fed = { server: 'redis', conversation: feed, compare: compareQueue } as const;
  return [...talks, fed, { ...taker, source: feed }];
}

/**
 * What was in a queue.
 * @param taken so many, from the first on
 * @param isKept whether who took them was not reset: else one may have been on its way to it
 */
export function takenAndLeft(taken: number, left: readonly number[], isKept: boolean): number[] {
  const onItsWay = !isKept && left[0] === taken + 2 ? [taken + 1] : [];
  return [...Array.from({ length: taken }, (_, i) => i + 1), ...onItsWay, ...left];
}

async function memcachedTalks(ports: Ports): Promise<Talk[]> {
  const talks: Talk[] = [];
  for (const [i, isEager] of [true, false, false].entries()) {
    const key = `count${i}`;
    const compare = async ({ answered, asked }: Requests): Promise<string[]> =>
      faultsOfCount(await state.readMemcachedCount(ports.memcached, key), answered, asked);
    talks.push(await requests(ports, 'memcached', protocols.memcachedIncr(key, isEager), compare));
  }
  return talks;
}

/** Streams up and down. @param seed of the first */
export async function streamTalks(ports: Ports, seed: number): Promise<Talk[]> {
  const talks: Talk[] = [];
  for (const [i, name] of ['bulk0', 'bulk1'].entries()) {
    const conversation = await BulkStream.to(ports.stream, name, seed + 2 * i);
    const compare = async (): Promise<string[]> =>
      // One that was reset has no end at which both would have to agree; what came was compared as it came.
      conversation.isDone ? conversation.compare(await state.readDigest(ports.stream, name)) : [];
    talks.push({ server: 'stream', conversation, compare });
  }
  return talks;
}

/** Begins all conversations. @param seed of what the streams have in them */
export async function beginTalks(ports: Ports, seed: number): Promise<Talk[]> {
  const talks = [...(await logTalks(ports)), ...(await redisTalks(ports)), ...(await memcachedTalks(ports))];
  talks.push(...(await streamTalks(ports, seed)));
  for (const name of ['file0', 'file1'])
    talks.push({
      server: 'nginx',
      conversation: await Downloads.to(ports.nginx, name),
      compare: nothing,
    });
  return talks;
}
