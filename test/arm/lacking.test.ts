import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import type { Finding } from '../../src/arm/finding.ts';
import type { BootProcessorSetting } from '../../src/arm/halt-text.ts';
import { parseIomem } from '../../src/arm/iomem.ts';
import { computingProcesses, lackingWithStageZero, lostComputing } from '../../src/arm/lacking.ts';
import { encryptionProblem, memoryEncryption } from '../../src/arm/memory-encryption.ts';
import { lostOf } from '../../src/arm/status.ts';
import { symbols } from '../../src/stage-zero/code.ts';
import { ADDRESS, MadeArea } from '../stage-zero/made-area.ts';
import { madeKcore, UNENCRYPTED } from './made-kcore.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-lacking-'));
after(() => rmSync(directory, { recursive: true }));

const RELEASE = '6.12.0-test';

function cpuInfo(cpus: number, flags = 'fpu lm xsave'): string {
  const cpu = (id: number): string => `processor\t: ${id}\ninitial apicid\t: ${id}\nflags\t\t: ${flags}\n\n`;
  return Array.from({ length: cpus }, (_, id) => cpu(id)).join('');
}

const TEXT = 0xffff_ffff_8100_0000n;
const HALT_OFFSET = 0x1230;
const CODE = 0x0100_0000;
/** PAGE_OFFSET of four levels. */
const DIRECT_MAP = 0xffff_8880_0000_0000n;

/** ENDBR64, HLT, RET */
const HALTING = [0xf3, 0x0f, 0x1e, 0xfa, 0xf4, 0xc3];

/** /proc/kcore with one segment: the page of physical memory that native_halt lies in. */
function kcore({ code = HALTING, vmcoreinfo = UNENCRYPTED } = {}): Buffer {
  const page = CODE + 0x1000;
  const content = Buffer.alloc(0x1000);
  content.set(code, HALT_OFFSET - 0x1000);
  return madeKcore([{ virtual: DIRECT_MAP + BigInt(page), physical: BigInt(page), content }], vmcoreinfo);
}

const FILES = {
  'proc/cpuinfo': cpuInfo(2),
  'proc/iomem': '00001000-7fffffff : System RAM\n  01000000-01ffffff : Kernel code\n',
  'proc/kallsyms': `${TEXT.toString(16)} T _text\n${(TEXT + BigInt(HALT_OFFSET)).toString(16)} t native_halt\n`,
  'proc/kcore': kcore(),
  'sys/kernel/security/lockdown': '[none] integrity confidentiality\n',
  'sys/class/dmi/id/sys_vendor': 'QEMU\n',
  'sys/class/dmi/id/bios_vendor': 'SeaBIOS\n',
  [`boot/config-${RELEASE}`]: 'CONFIG_KEXEC_CORE=y\nCONFIG_KEXEC=y\n',
};

let machines = 0;

/** The root of a machine with these files. */
function machine(files: Partial<typeof FILES>): string {
  const root = join(directory, String(machines++));
  for (const [name, content] of Object.entries({ ...FILES, ...files })) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), content);
  }
  return root;
}

/** What doctor finds on it. */
function found(files: Partial<typeof FILES>, setting: BootProcessorSetting = 'auto'): Finding {
  const finding = computingProcesses(RELEASE, setting, machine(files));
  assert.equal(finding.what, 'computing processes');
  assert.equal(finding.todo === undefined, finding.state === 'good');
  return finding;
}

const DELL = { 'sys/class/dmi/id/sys_vendor': 'Dell Inc.\n', 'sys/class/dmi/id/bios_vendor': 'Dell Inc.\n' };
const SAVED = 'stage zero saves their registers';
const CALLED = `${SAVED}; it calls the boot processor by a system management interrupt`;
const NOT_CALLED = `${SAVED}, but not those on the boot processor when another one panics`;

test('a machine whose firmware is known loses nothing', () => {
  assert.deepEqual(found({}), { what: 'computing processes', state: 'good', found: CALLED });
  assert.equal(found({}, 'smi').state, 'good');
});

test('firmware that is not known loses what computes on the boot processor, and the setting is named', () => {
  const { state, found: is, todo } = found(DELL);
  assert.deepEqual([state, is], ['advice', NOT_CALLED]);
  assert.match(todo ?? '', /firmware \(Dell Inc\. Dell Inc\.\) .* crash-kernel\.boot-processor = "smi"/);
});

test('a setting that makes the attempt on firmware that is not known is called so', () => {
  const { state, found: is, todo } = found(DELL, 'smi');
  assert.deepEqual([state, is], ['advice', CALLED]);
  assert.match(todo ?? '', /^not tried with this firmware: .* crash-kernel\.boot-processor = "off"$/);
});

test('what the configuration gives up is named', () => {
  const { found: is, todo } = found({}, 'off');
  assert.equal(is, NOT_CALLED);
  assert.equal(todo, 'the configuration says so (crash-kernel.boot-processor)');
});

test('a kernel whose halt is another one is not called', () => {
  const { found: is, todo } = found({ 'proc/kcore': kcore({ code: [] }) });
  assert.equal(is, NOT_CALLED);
  assert.equal(todo, 'native_halt of this kernel is not what is expected');
});

test('a single processor needs no call', () => {
  const single = { ...DELL, 'proc/cpuinfo': cpuInfo(1) };
  assert.deepEqual(found(single), { what: 'computing processes', state: 'good', found: SAVED });
});

test('where there can be no stage zero, the reason is named, and that arming works', () => {
  const reasons: (readonly [Partial<typeof FILES>, string])[] = [
    [
      { 'sys/kernel/security/lockdown': 'none [integrity] confidentiality\n' },
      'under lockdown (integrity) the kernel does not allow stage zero',
    ],
    [{ 'proc/cpuinfo': cpuInfo(2, 'fpu lm') }, 'the processor has no XSAVE'],
    [
      { 'proc/cpuinfo': cpuInfo(2, 'lm xsave tdx_guest') },
      'in a confidential virtual machine no processor can be started by another',
    ],
    [
      { 'proc/kcore': kcore({ vmcoreinfo: 'NUMBER(sme_mask)=2251799813685248\n' }) },
      'memory is encrypted (SME or SEV), and stage zero reads it as it is',
    ],
    [
      { 'proc/kcore': kcore({ vmcoreinfo: 'OSRELEASE=6.12.0\n' }) },
      'the kernel does not show whether memory is encrypted (sme_mask of VMCOREINFO, in /proc/kcore)',
    ],
    [
      { [`boot/config-${RELEASE}`]: '# CONFIG_KEXEC is not set\nCONFIG_KEXEC_FILE=y\n' },
      'the kernel was built without kexec_load(2) (CONFIG_KEXEC)',
    ],
  ];
  for (const [files, reason] of reasons) {
    const { state, found: is, todo } = found(files);
    assert.deepEqual([state, is], ['advice', `would be lost: ${reason}`]);
    const isEncrypted = reason.startsWith('memory is encrypted');
    assert.match(todo ?? '', isEncrypted ? /^see memory encryption: no/ : /^arming works without stage zero/);
  }
});

test('encrypted memory is said to be what no process comes back from, and memory that may be is named', () => {
  const encrypted = machine({ 'proc/kcore': kcore({ vmcoreinfo: 'NUMBER(sme_mask)=140737488355328\n' }) });
  assert.equal(memoryEncryption(encrypted).found, 'on (SME or SEV)');
  assert.equal(memoryEncryption(encrypted).state, 'missing');
  assert.match(
    encryptionProblem(encrypted) ?? '',
    /^memory encryption is on \(SME or SEV\): such memory cannot be read after a panic, .*: boot with mem_encrypt=off/,
  );
  assert.equal(memoryEncryption(machine({})).state, 'good');
  assert.equal(encryptionProblem(machine({})), undefined);
  const silent = machine({ 'proc/kcore': kcore({ vmcoreinfo: 'OSRELEASE=6.12.0\n' }) });
  assert.match(memoryEncryption(silent).found, /^not known, /);
  assert.deepEqual([memoryEncryption(silent).state, encryptionProblem(silent)], ['advice', undefined]);
});

test('what would be lost is one sentence with its reason, or none', () => {
  assert.equal(lostComputing({}), undefined);
  assert.equal(
    lostComputing({ stageZero: 'the processor has no XSAVE' }),
    'processes that compute on a CPU at a panic would be lost: the processor has no XSAVE',
  );
  assert.equal(
    lostComputing({ bootProcessor: 'the configuration says so (crash-kernel.boot-processor)' }),
    'processes that compute on the boot processor when another one panics would be lost: ' +
      'the configuration says so (crash-kernel.boot-processor)',
  );
});

test('a machine without memory where the others could begin loses what computes there', () => {
  const high = { 'proc/iomem': '00100000-7fffffff : System RAM\n  01000000-01ffffff : Kernel code\n' };
  const reason = 'there are no 16 KiB of RAM below 640 KiB for them to begin in';
  const { state, found: is, todo } = found(high);
  assert.deepEqual(
    [state, is],
    ['advice', `${SAVED}, but only those of the CPU that panics and of the boot processor`],
  );
  assert.equal(todo, reason);
  const { found: less, todo: why } = found({ ...high, ...DELL });
  assert.equal(less, `${SAVED}, but only those of the CPU that panics`);
  assert.match(why ?? '', /^there are no 16 KiB .*; what the firmware/);
  assert.equal(found({ ...high, 'proc/cpuinfo': cpuInfo(1) }).state, 'good');
  const resources = parseIomem(high['proc/iomem']);
  const lacking = lackingWithStageZero({ isSingle: false }, resources, 'the configuration says so');
  assert.deepEqual(lacking, { bootProcessor: 'the configuration says so', otherProcessors: reason });
  assert.equal(
    lostComputing(lacking),
    'processes that compute on the boot processor when another one panics would be lost: the configuration says so; ' +
      `processes that compute on the others, but the one that panics, would be lost: ${reason}`,
  );
});

test('stage zero that was overwritten after arming is told', () => {
  const area = new MadeArea();
  const lostWith = (content: Buffer): string | undefined => {
    const segment = { virtual: DIRECT_MAP + BigInt(ADDRESS), physical: BigInt(ADDRESS), content };
    return lostOf(
      { lacking: {}, stageZeroAddress: ADDRESS },
      machine({ 'proc/kcore': madeKcore([segment]) }),
    );
  };
  assert.equal(lostWith(area.bytes), undefined);
  for (const at of [
    0x200,
    symbols.CONSTANTS,
    symbols.CONSTANTS + symbols.NOTE + 12,
    area.offset(symbols.TABLE),
  ]) {
    const damaged = Buffer.from(area.bytes);
    damaged[at] = (damaged[at] ?? 0) ^ 0x40;
    assert.equal(
      lostWith(damaged),
      'processes that compute on a CPU at a panic would be lost: ' +
        'stage zero was overwritten since the system was armed; run otherworld arm again',
      `byte ${at}`,
    );
  }
  // A kernel that does not show that memory does not tell.
  assert.equal(lostOf({ lacking: {}, stageZeroAddress: ADDRESS }, machine({})), undefined);
});

test('processors that came after arming are told by their APIC ids', () => {
  const root = machine({ 'proc/cpuinfo': cpuInfo(4) });
  assert.equal(lostOf({ lacking: {}, apicIds: [0, 1, 2, 3, 4] }, root), undefined);
  assert.equal(
    lostOf({ lacking: {}, apicIds: [0, 2] }, root),
    'processes that compute on a CPU that is new since the system was armed would be lost: ' +
      'stage zero does not know the APIC ids 1, 3; run otherworld arm again',
  );
  // Without stage zero all are lost, whenever they came.
  assert.match(
    lostOf({ lacking: { stageZero: 'no XSAVE' } }, root) ?? '',
    /^processes that compute on a CPU at a/,
  );
});
