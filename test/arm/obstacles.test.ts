import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { obstacles } from '../../src/arm/obstacles.ts';
import { restoreSysctls, setPanicSysctls } from '../../src/arm/panic-sysctls.ts';
import { defaultConfig } from '../../src/config/config.ts';
import { madeKcore } from './made-kcore.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-obstacles-'));
after(() => rmSync(directory, { recursive: true }));

const HEALTHY = {
  'proc/kallsyms': 'ffffffff81000000 T startup_64\nffffffff81000060 T secondary_startup_64\n',
  'proc/sys/kernel/kexec_load_disabled': '0\n',
  'proc/sys/kernel/kexec_load_limit_panic': '-1\n',
  'proc/sys/kernel/kptr_restrict': '0\n',
  'sys/kernel/security/lockdown': '[none] integrity confidentiality\n',
  'sys/kernel/kexec_loaded': '0\n',
  'proc/kcore': madeKcore([]).toString('latin1'),
};

let machines = 0;

/** What is in the way on a machine with these files. */
function missingOn(files: Partial<Record<keyof typeof HEALTHY, string>>): string[] {
  const root = join(directory, String(machines++));
  for (const [name, content] of Object.entries({ ...HEALTHY, ...files })) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), content, 'latin1');
  }
  const found = obstacles('/nonexistent/vmlinuz', root).filter(({ state }) => state === 'missing');
  for (const { todo } of found) assert.ok(todo);
  return found.map(({ what, found: is }) => `${what}: ${is}`);
}

test('an ordinary machine has no obstacles', () => {
  assert.deepEqual(missingOn({}), []);
});

test('a kernel that takes no crash kernel any more is found out before anything is built', () => {
  const disabled = missingOn({ 'proc/sys/kernel/kexec_load_disabled': '1\n' });
  assert.deepEqual(disabled, ['loading a crash kernel: kernel.kexec_load_disabled is 1']);
  const used = missingOn({ 'proc/sys/kernel/kexec_load_limit_panic': '0\n' });
  assert.deepEqual(used, ['loading a crash kernel: kernel.kexec_load_limit_panic is 0']);
});

test('encrypted memory is an obstacle: a crash kernel that is loaded would bring nothing back', () => {
  const kcore = madeKcore([], 'NUMBER(sme_mask)=140737488355328\n').toString('latin1');
  assert.deepEqual(missingOn({ 'proc/kcore': kcore }), ['memory encryption: on (SME or SEV)']);
});

test('hidden symbols are an obstacle, and what hides them is named', () => {
  const hidden = '0000000000000000 T startup_64\n0000000000000000 T _text\n';
  const [found] = missingOn({ 'proc/kallsyms': hidden, 'proc/sys/kernel/kptr_restrict': '2\n' });
  assert.equal(found, "the kernel's symbols: /proc/kallsyms shows no addresses (kernel.kptr_restrict is 2)");
});

test('under lockdown, an image that the kernel does not take is an obstacle', () => {
  const [found] = missingOn({ 'sys/kernel/security/lockdown': 'none [integrity] confidentiality\n' });
  assert.match(found ?? '', /^lockdown: integrity: the kernel does not take \/nonexistent\/vmlinuz /);
});

test('panic sysctls are put back as they were; one that was set since by somebody else stays', () => {
  const sysctls = join(directory, 'sysctls');
  mkdirSync(sysctls);
  const value = (name: string) => readFileSync(join(sysctls, name), 'utf8');
  for (const name of ['panic_on_oops', 'softlockup_panic', 'hung_task_panic'])
    writeFileSync(join(sysctls, name), '0');
  writeFileSync(join(sysctls, 'panic'), '0');
  const config = defaultConfig();
  const before = setPanicSysctls(config, sysctls);
  assert.deepEqual(before, { panic_on_oops: '0', softlockup_panic: '0', panic: '0' });
  writeFileSync(join(sysctls, 'panic'), '60');
  restoreSysctls(before, config, sysctls);
  assert.deepEqual([value('panic_on_oops'), value('softlockup_panic'), value('panic')], ['0', '0', '60']);
});
