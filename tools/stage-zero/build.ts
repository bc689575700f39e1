// Assembles src/stage-zero/stage-zero.S and writes src/stage-zero/code.ts: `npm run stage-zero`. Needs gcc and
// binutils; who installs Otherworld needs neither, and a test assembles it again and compares.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const folder = join(import.meta.dirname, '../../src/stage-zero');
export const codeFile = join(folder, 'code.ts');

/** The text of src/stage-zero/code.ts. @throws if the assembler does, or if code has to be relocated */
export function assemble(): string {
  const scratch = mkdtempSync(join(tmpdir(), 'stage-zero-'));
  try {
    const object = join(scratch, 'stage-zero.o');
    execFileSync('gcc', ['-c', '-o', object, join(folder, 'stage-zero.S')]);
    const relocations = execFileSync('objdump', ['-r', object], { encoding: 'latin1' });
    if (/ R_X86_64/.test(relocations)) throw new Error(`the code has to be relocated:\n${relocations}`);
    const section = (name: string): string => {
      const file = join(scratch, name);
      execFileSync('objcopy', ['-O', 'binary', '-j', name, object, file]);
      return readFileSync(file).toString('hex').replaceAll(/.{96}/g, '$&\n').trim();
    };
    return `// Made by \`npm run stage-zero\` from stage-zero.S, which says what it is; not to be edited.

/** Code at the beginning of the area. */
export const areaCode = hex(\`
${section('.text')}
\`);

/** What lies in a page below 1 MiB while CPUs are started. */
export const lowCode = hex(\`
${section('.low')}
\`);

/** Labels and constants of the source. */
export const symbols = {
${symbolsOf(object)}
} as const;

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll('\\n', ''), 'hex');
}
`;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function symbolsOf(object: string): string {
  const lines = execFileSync('nm', ['--defined-only', object], { encoding: 'latin1' }).trimEnd().split('\n');
  return lines
    .map((line) => /^([0-9a-f]+) \w (\w+)$/.exec(line) ?? [])
    .map(([, value = '', name = '']) => [name, BigInt(`0x${value}`)] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `  ${name}: ${value},`)
    .join('\n');
}

if (process.argv[1] === import.meta.filename) writeFileSync(codeFile, assemble());
