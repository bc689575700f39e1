import { connect } from 'node:net';
import type { StreamDigest } from './bulk.ts';

/** Longest time for a new connection to be answered. */
const ANSWER_MILLISECONDS = 120_000;

/**
 * Asks a server through a connection of its own.
 * @param isWhole whether the answer has come to its end
 * @throws Error if it has not in time, with what came
 */
export function askOnce(port: number, request: string, isWhole: (text: string) => boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1' });
    let text = '';
    const fail = (why: string): void => {
      socket.destroy();
      reject(
        new Error(`'${request.trim()}' through a new connection: ${why}, after '${text.slice(0, 100)}'`),
      );
    };
    const timer = setTimeout(() => fail(`no whole answer in ${ANSWER_MILLISECONDS} ms`), ANSWER_MILLISECONDS);
    socket.write(request);
    socket.on('data', (data) => {
      text += data.toString('latin1');
      if (!isWhole(text)) return;
      socket.destroy();
      resolve(text);
    });
    socket.on('error', (error) => fail(error.message));
    socket.on('close', () => {
      clearTimeout(timer);
      fail('it was closed');
    });
  });
}

const isLine = (text: string): boolean => text.endsWith('\n');

/** An entry of the log. */
export interface LogEntry {
  readonly name: string;
  readonly n: number;
  readonly sum: number;
}

/** All entries of the log of servers.py. */
export async function readLog(port: number): Promise<LogEntry[]> {
  const text = await askOnce(port, 'dump\n', (text) => `\n${text}`.endsWith('\nend\n'));
  return text
    .split('\n')
    .slice(0, -2)
    .map((line) => {
      const [name = '', n, sum] = line.split(' ');
      return { name, n: Number(n), sum: Number(sum) };
    });
}

/** What the server of a stream counts, when both sides have ended it. */
export async function readDigest(port: number, name: string): Promise<StreamDigest> {
  const text = (await askOnce(port, `digest ${name}\n`, isLine)).trim();
  const [got, gotSha256 = text, sent, sentSha256 = text] = text.split(' ');
  return { got: Number(got), gotSha256, sent: Number(sent), sentSha256 };
}

/** A count of Redis; 0 if the key is not there. */
export async function readRedisCount(port: number, key: string): Promise<number> {
  const text = await askOnce(
    port,
    `GET ${key}\r\n`,
    (text) => text === '$-1\r\n' || text.split('\n').length > 2,
  );
  return Number(text.split('\r\n')[1]);
}

/** The numbers of a list of Redis. */
export async function readRedisList(port: number, key: string): Promise<number[]> {
  const isWhole = (text: string): boolean => {
    const length = /^\*(\d+)\r\n/.exec(text)?.[1];
    return length !== undefined && text.split('\n').length === 2 + 2 * Number(length);
  };
  const text = await askOnce(port, `LRANGE ${key} 0 -1\r\n`, isWhole);
  const lines = text.split('\r\n').slice(1, -1);
  return lines.filter((_, i) => i % 2 === 1).map(Number);
}

/** A count of memcached; 0 if the key is not there. */
export async function readMemcachedCount(port: number, key: string): Promise<number> {
  const text = await askOnce(port, `get ${key}\r\n`, (text) => text.endsWith('END\r\n'));
  return Number(text.split('\r\n')[1] ?? 0) || 0;
}
