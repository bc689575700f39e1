import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, suite, test } from 'node:test';
import { findHaltText } from '../../src/arm/halt-text.ts';
import { parseIomem } from '../../src/arm/iomem.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-halt-'));
after(() => rmSync(directory, { recursive: true }));

const TEXT = 0xffff_ffff_8100_0000n;
const PHYSICAL = 0x0d00_0000;
/** Where native_halt is in the kernel's text. */
const OFFSET = 0x1230;
const resources = parseIomem(
  '00100000-7ffdcfff : System RAM\n  0d000000-0dffffff : Kernel code\n  0e000000-0effffff : Kernel rodata\n',
);

interface Machine {
  readonly firmware?: readonly [string, string];
  readonly kallsyms?: string;
  /** The bytes of native_halt; undefined: no /proc/kcore. */
  readonly code?: readonly number[] | undefined;
}

const KALLSYMS = `${TEXT.toString(16)} T _text
${(TEXT + 0x1200n).toString(16)} t native_halt_other
${(TEXT + BigInt(OFFSET)).toString(16)} t native_halt
${(TEXT + 0x1300n).toString(16)} t native_halt\t[other]
`;
const PLAIN = [0xf4, 0xc3];

let machines = 0;

/** The root of a machine with these files in /proc and /sys. */
function machine({ firmware = ['QEMU', 'SeaBIOS'], kallsyms = KALLSYMS, ...rest }: Machine = {}): string {
  const root = join(directory, String(machines++));
  const put = (path: string, content: string | Buffer): void => {
    const file = join(root, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  };
  for (const [i, name] of ['sys_vendor', 'bios_vendor'].entries())
    put(`sys/class/dmi/id/${name}`, `${firmware[i]}\n`);
  put('proc/kallsyms', kallsyms);
  const code = 'code' in rest ? rest.code : PLAIN;
  if (code !== undefined) put('proc/kcore', kcore(Buffer.from(code)));
  return root;
}

/** An ELF core with one segment of memory, which begins a page before the kernel's text. */
function kcore(code: Buffer): Buffer {
  const start = PHYSICAL - 4096;
  const memory = Buffer.alloc(3 * 4096, 0xcc);
  code.copy(memory, PHYSICAL - start + OFFSET);
  const header = Buffer.alloc(64 + 56);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(4, 16);
  header.writeUInt16LE(62, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(1, 56);
  header.writeUInt32LE(1, 64);
  header.writeBigUInt64LE(BigInt(header.length), 64 + 8);
  header.writeBigUInt64LE(TEXT - 4096n, 64 + 16);
  header.writeBigUInt64LE(BigInt(start), 64 + 24);
  for (const at of [32, 40]) header.writeBigUInt64LE(BigInt(memory.length), 64 + at);
  return Buffer.concat([header, memory]);
}

suite('where the boot processor is halted', () => {
  for (const [how, code, hlt] of [
    ['alone', PLAIN, 0],
    ['behind ENDBR64', [0xf3, 0x0f, 0x1e, 0xfa, 0xf4, 0xc3], 4],
    [
      'behind a call that was patched out, before the jump to the return thunk',
      [0x66, 0x90, 0xf4, 0xe9, 1, 2, 3, 4],
      2,
    ],
    ['behind VERW, which clears buffers', [0x0f, 0x00, 0x2d, 1, 2, 3, 4, 0xf4, 0xc3], 7],
  ] as const) {
    test(`is HLT ${how}`, () => {
      assert.deepEqual(findHaltText('auto', resources, machine({ code })), {
        physical: PHYSICAL + OFFSET + hlt,
        virtual: TEXT + BigInt(OFFSET + hlt),
      });
    });
  }

  test('is asked for on firmware that is not known if the configuration says so', () => {
    const found = findHaltText('smi', resources, machine({ firmware: ['Dell Inc.', 'Dell Inc.'] }));
    assert.equal(typeof found, 'object');
  });
});

suite('the boot processor is not called', () => {
  test('if the configuration says so', () => {
    assert.match(String(findHaltText('off', resources, machine())), /^the configuration says so/);
  });

  test('on firmware that is not known', () => {
    const why = String(findHaltText('auto', resources, machine({ firmware: ['QEMU', 'EDK II'] })));
    assert.match(why, /firmware \(QEMU EDK II\) .* is not known; crash-kernel\.boot-processor = "smi"/);
    rmSync(join(directory, `${machines - 1}`, 'sys'), { recursive: true });
    const none = String(findHaltText('auto', resources, join(directory, `${machines - 1}`)));
    assert.match(none, /firmware \(unknown unknown\)/);
  });

  test('if the kernel does not show where it halts', () => {
    const where = /^the kernel does not show where native_halt is$/;
    const hidden = KALLSYMS.replaceAll(/^[0-9a-f]+/gm, '0000000000000000');
    const other = `${TEXT.toString(16)} T _text\n`;
    for (const kallsyms of [hidden, other, ''])
      assert.match(String(findHaltText('auto', resources, machine({ kallsyms }))), where);
    const [ram] = resources;
    assert.ok(ram !== undefined);
    assert.match(String(findHaltText('auto', [ram], machine())), where);
  });

  test('if its text is another, or cannot be read', () => {
    const what = /^native_halt of this kernel is not what is expected$/;
    const far = [...Array.from({ length: 40 }, () => 0x90), ...PLAIN];
    for (const code of [[0xf4, 0x90], [0xc3], far, undefined])
      assert.match(String(findHaltText('auto', resources, machine({ code }))), what);
  });
});
