import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { LabError } from './error.ts';

/** An open QMP session: QEMU's control channel. */
export interface Qmp {
  /** Runs one command; resolves to its `return` value. @throws LabError with QEMU's own description. */
  execute(command: string, args?: Record<string, unknown>): Promise<unknown>;
  close(): void;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/**
 * Opens a QMP session on a unix socket. QEMU serves one session at a time, so close it soon.
 * @throws LabError if nobody listens there.
 */
export async function openQmp(socketPath: string): Promise<Qmp> {
  const socket = createConnection(socketPath);
  const waiting: Waiting[] = [];
  const answers = createInterface({ input: socket });
  const fail = (error: Error): void => {
    for (const { reject } of waiting.splice(0))
      reject(new LabError(`QEMU's control socket: ${error.message}`));
  };
  socket.on('error', fail);
  // The socket's error comes from there as well.
  answers.on('error', () => undefined);
  socket.on('close', () => fail(new Error('closed')));
  const greeting = new Promise<unknown>((resolve, reject) => waiting.push({ resolve, reject }));
  answers.on('line', (line) => receive(JSON.parse(line), waiting));
  const execute = async (command: string, args?: Record<string, unknown>): Promise<unknown> => {
    // Nothing would answer, and no event would say so any more.
    if (socket.destroyed) throw new LabError("QEMU's control socket: closed");
    const answer = new Promise<unknown>((resolve, reject) => waiting.push({ resolve, reject }));
    send(socket, { execute: command, arguments: args });
    return answer;
  };
  await greeting;
  await execute('qmp_capabilities');
  return { execute, close: () => socket.destroy() };
}

function send(socket: Socket, message: object): void {
  socket.write(`${JSON.stringify(message)}\n`);
}

/** QMP answers in the order of the commands; events come in between and are of no interest here. */
function receive(message: unknown, waiting: Waiting[]): void {
  if (typeof message !== 'object' || message === null || 'event' in message) return;
  const next = waiting.shift();
  if ('error' in message) {
    next?.reject(new LabError(`QEMU: ${describe(message.error)}`));
  } else {
    next?.resolve('return' in message ? message.return : undefined);
  }
}

function describe(error: unknown): string {
  if (typeof error === 'object' && error !== null && 'desc' in error) return String(error.desc);
  return JSON.stringify(error);
}

/** Opens a session, runs `work`, closes it whatever happens. */
export async function withQmp<T>(socketPath: string, work: (qmp: Qmp) => Promise<T>): Promise<T> {
  const qmp = await openQmp(socketPath);
  try {
    return await work(qmp);
  } finally {
    qmp.close();
  }
}
