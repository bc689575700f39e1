import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, suite, test } from 'node:test';
import { type CrashImage, crashImage } from '../../src/arm/crash-image.ts';
import { kernelAddresses } from '../../src/arm/kernel-addresses.ts';
import { savedState } from '../../src/stage-zero/saved.ts';
import { PT_LOAD, PT_NOTE, parseNotes, parseProgramHeaders } from '../../src/system/elf.ts';
import { madeImage, runningBootParams } from '../kexec/made-image.ts';
import { type MadeSegment, madeKcore } from './made-kcore.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-crash-image-'));
after(() => rmSync(directory, { recursive: true }));

const TEXT = 0xffff_ffff_9a00_0000n;
const DIRECT_MAP = 0xffff_9a00_4000_0000n;
const CODE = 0x0d00_0000n;

function ram(physical: bigint, base = DIRECT_MAP): MadeSegment {
  return { virtual: base + physical, physical, content: Buffer.alloc(0x1000) };
}

/** The kernel's text, what is mapped by pages, and RAM. */
const SEGMENTS: readonly MadeSegment[] = [
  { virtual: TEXT, physical: CODE, content: Buffer.alloc(0x1000) },
  { virtual: 0xffff_c900_0000_0000n, physical: -1n, content: Buffer.alloc(0x1000) },
  ram(0x1000n),
  ram(0x10_0000n),
];

const CPU = (id: number): string => `processor\t: ${id}\ninitial apicid\t: ${id}\nflags\t\t: lm xsave\n\n`;

const FILES: Readonly<Record<string, string | Buffer>> = {
  'proc/cpuinfo': CPU(0) + CPU(1),
  'proc/iomem': [
    '00001000-0009fbff : System RAM',
    '00100000-7ffdcfff : System RAM',
    '  0d000000-0dffffff : Kernel code',
    '  0f6dc000-0fbfffff : Kernel bss',
    '  6a000000-7dffffff : Crash kernel\n',
  ].join('\n'),
  'proc/kallsyms': `${TEXT.toString(16)} T _text\n`,
  'proc/kcore': madeKcore(SEGMENTS),
  'proc/sys/kernel/random/boot_id': '00112233-4455-6677-8899-aabbccddeeff\n',
  'sys/kernel/boot_params/data': runningBootParams(),
  'sys/kernel/vmcoreinfo': '0x1a3e000 1024\n',
  'sys/devices/system/cpu/cpu0/crash_notes': '1000000\n',
  'sys/devices/system/cpu/cpu0/crash_notes_size': '368\n',
  vmlinuz: madeImage(),
  initramfs: Buffer.alloc(5000, 7),
};

let machines = 0;

/** The root of a machine with these files. */
function machine(files: typeof FILES = {}): string {
  const root = join(directory, String(machines++));
  for (const [name, content] of Object.entries({ ...FILES, ...files })) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), content);
  }
  return root;
}

function imageOf(root: string): CrashImage {
  const [image, initramfs] = [join(root, 'vmlinuz'), join(root, 'initramfs')];
  return crashImage({ image, initramfs, commandLine: 'quiet', bootProcessor: 'off' }, root);
}

function segmentOf({ image }: CrashImage, name: string) {
  const segment = image.segments.find((each) => each.name === name);
  assert.ok(segment !== undefined, name);
  return segment;
}

/** What the crash kernel's core header has: type, physical and virtual address of each segment. */
function coreHeader(made: CrashImage) {
  const { bytes } = segmentOf(made, 'elfcorehdr');
  return parseProgramHeaders(bytes.subarray(64, 64 + 56 * bytes.readUInt16LE(56)));
}

suite('what is loaded', () => {
  test('is entered at stage zero, which is found by its note and is whole', () => {
    const made = imageOf(machine());
    const zero = segmentOf(made, 'stage-zero');
    assert.equal(made.image.entry, zero.address);
    const memory = Buffer.alloc(zero.memoryBytes);
    zero.bytes.copy(memory);
    const note = coreHeader(made).findLast(({ type }) => type === PT_NOTE);
    assert.ok(note !== undefined);
    const at = note.physical - zero.address;
    const result = savedState(parseNotes(memory.subarray(at, at + note.fileBytes)), {
      read: (physical, length) => memory.subarray(physical - zero.address, physical - zero.address + length),
    });
    assert.deepEqual([result?.phase, result?.problems], ['not entered', []]);
    assert.equal(result?.bootId?.toString('hex'), '00112233445566778899aabbccddeeff');
  });

  test('tells how much of the reserved memory stage zero takes', () => {
    const made = imageOf(machine());
    assert.equal(made.stageZeroBytes, segmentOf(made, 'stage-zero').memoryBytes);
  });

  test('knows the processors, and says what it lacks', () => {
    const { apicIds, lacking } = imageOf(machine());
    assert.deepEqual(apicIds, [0, 1]);
    assert.deepEqual(lacking, {
      bootProcessor: 'the configuration says so (crash-kernel.boot-processor)',
      otherProcessors: undefined,
    });
  });

  test('has the virtual addresses of text and memory in the core header', () => {
    const loads = coreHeader(imageOf(machine()))
      .filter(({ type }) => type === PT_LOAD)
      .map(({ physical, virtual }) => [physical, virtual]);
    assert.deepEqual(loads.slice(0, 3), [
      [0x0d00_0000, TEXT],
      [0x10_0000, DIRECT_MAP + 0x10_0000n],
      [0x7e00_0000, DIRECT_MAP + 0x7e00_0000n],
    ]);
  });

  test('is nothing, with the reason, where something cannot be read', () => {
    const root = machine();
    rmSync(join(root, 'sys/kernel/boot_params/data'));
    assert.throws(() => imageOf(root), { code: 'ENOENT' });
    const encrypted = machine({ 'proc/kcore': madeKcore(SEGMENTS, 'NUMBER(sme_mask)=140737488355328\n') });
    assert.throws(() => imageOf(encrypted), { name: 'ArmError', message: /^memory is encrypted/ });
  });
});

suite('an address that is not certain is left out', () => {
  const known = { textVirtual: TEXT, directMap: DIRECT_MAP };
  const code = [{ name: 'Kernel code', depth: 1, start: Number(CODE), end: 0x0e00_0000 }];
  for (const [what, files, resources, expected] of [
    ['not: all are shown', {}, code, known],
    [
      'the text, if its symbol is hidden',
      { 'proc/kallsyms': '0000000000000000 T _text\n' },
      code,
      { directMap: DIRECT_MAP },
    ],
    ['the text, if its place in memory is hidden', {}, [], { directMap: DIRECT_MAP }],
    [
      'the direct map, if memory says different things of it',
      { 'proc/kcore': madeKcore([...SEGMENTS, ram(0x20_0000n, DIRECT_MAP + 0x4000_0000n)]) },
      code,
      { textVirtual: TEXT },
    ],
    [
      'the direct map, if it cannot begin there',
      { 'proc/kcore': madeKcore([ram(0x1000n, DIRECT_MAP + 0x1000n)]) },
      code,
      { textVirtual: TEXT },
    ],
  ] as const)
    test(what, () => assert.deepEqual(kernelAddresses(resources, machine(files)), expected));

  test('the direct map, if the kernel does not show its memory', () => {
    const root = machine();
    rmSync(join(root, 'proc/kcore'));
    assert.deepEqual(kernelAddresses(code, root), { textVirtual: TEXT });
  });
});
