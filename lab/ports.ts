import { createServer } from 'node:net';
import { LabError } from './error.ts';

/** A TCP port of 127.0.0.1 that nobody listens on. */
export async function freePort(): Promise<number> {
  const port = await listen(0);
  if (port === undefined) throw new LabError('no free port on 127.0.0.1');
  return port;
}

/** Whether a TCP port of 127.0.0.1 can be listened on. */
export async function portIsFree(port: number): Promise<boolean> {
  return (await listen(port)) !== undefined;
}

/** Listens for a moment. @returns the port, or undefined if it is taken */
function listen(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(undefined));
    server.listen(port, '127.0.0.1', () => {
      const address = server.address();
      const chosen = typeof address === 'object' && address ? address.port : undefined;
      server.close(() => resolve(chosen));
    });
  });
}
