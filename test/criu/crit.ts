import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** Path of CRIU's tool for images; undefined if it is not installed. */
export function critPath(): string | undefined {
  const directories = (process.env.PATH ?? '').split(':');
  return directories.map((directory) => join(directory, 'crit')).find((path) => existsSync(path));
}

/** Runs the script whose path it is given with the arguments of each line, and ends what each says. */
const AGAIN = `
import json, runpy, sys
script = sys.argv[1]
for line in sys.stdin:
    sys.argv = [script, *json.loads(line)]
    runpy.run_path(script, run_name='__main__')
    print(end='\\0', flush=True)
`;

/**
 * crit in one process for all images that it decodes: to start it takes longer than all that it does. Asked
 * for one image after the other.
 */
export class Crit implements Disposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #output: AsyncIterator<string>;
  #rest = '';

  constructor() {
    const path = critPath();
    if (path === undefined) throw new Error('crit is not installed');
    const [, interpreter = 'python3'] = /^#!\s*(\S+)/.exec(readFileSync(path, 'latin1')) ?? [];
    this.#child = spawn(interpreter, ['-c', AGAIN, path], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#output = this.#child.stdout.setEncoding('utf8')[Symbol.asyncIterator]();
  }

  /**
   * Entries of an image, as `crit decode` shows them.
   * @param options of `crit decode`
   */
  async decode(image: string, ...options: readonly string[]): Promise<Record<string, unknown>[]> {
    this.#child.stdin.write(`${JSON.stringify(['decode', ...options, '-i', image])}\n`);
    while (!this.#rest.includes('\0')) {
      const { done, value } = await this.#output.next();
      if (done === true) throw new Error(`crit has ended, and has not decoded ${image}`);
      this.#rest += value;
    }
    const end = this.#rest.indexOf('\0');
    const text = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end + 1);
    return JSON.parse(text).entries;
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }
}
