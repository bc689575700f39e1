import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { codeOf } from '../../../src/system/thrown.ts';

/** One end of a TCP connection to a guest, outside of it: what became of it, and how long it was silent. */
export class Wire {
  readonly socket: Socket;
  /** This end's port: QEMU's user networking has the same one in what the guest sees. */
  readonly port: number;
  #got = 0;
  #ended: string | undefined;
  #lastHeard = performance.now();
  #longestSilence = 0;

  private constructor(socket: Socket, port: number, take: (data: Buffer) => void) {
    this.socket = socket;
    this.port = port;
    socket.setNoDelay(true);
    socket.on('data', (data) => {
      const bytes = Buffer.from(data);
      this.#hear();
      this.#got += bytes.length;
      take(bytes);
    });
    socket.on('error', (error) => this.#end(codeOf(error) ?? error.message));
    socket.on('end', () => this.#end('end'));
  }

  /**
   * Connects to a port of this host that leads to the server.
   * @param take all that comes
   * @throws Error if nobody listens
   */
  static async to(port: number, take: (data: Buffer) => void): Promise<Wire> {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    await once(socket, 'connect');
    return new Wire(socket, socket.localPort ?? 0, take);
  }

  /** Bytes that have come. */
  get got(): number {
    return this.#got;
  }

  /** Bytes that this host's kernel has taken. */
  get sent(): number {
    return this.socket.bytesWritten - this.socket.writableLength;
  }

  /** How the other side ended it: `end`, `ECONNRESET` ...; undefined as long as it is there. */
  get ended(): string | undefined {
    return this.#ended;
  }

  /** The longest time in seconds between two pieces that came, up to its end if it was ended. */
  get silence(): number {
    return this.#longestSilence / 1000;
  }

  write(data: string | Buffer): void {
    if (this.#ended === undefined) this.socket.write(data);
  }

  close(): void {
    this.socket.destroy();
  }

  #end(how: string): void {
    if (this.#ended === undefined) this.#hear();
    this.#ended ??= how;
  }

  #hear(): void {
    const now = performance.now();
    this.#longestSilence = Math.max(this.#longestSilence, now - this.#lastHeard);
    this.#lastHeard = now;
  }
}
