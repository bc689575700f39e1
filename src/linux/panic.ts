import type { LogRecord } from './printk.ts';

/** The last words of panic() (kernel/panic.c). */
const PANIC = /^Kernel panic - not syncing: (.*)$/;
/** What panic() is called with where an oops or a warning, which was printed before, is the real reason. */
const AFTER_OOPS = /^Fatal exception/;
const AFTER_WARNING = /^(\w+: )?panic_on_warn set/;
/**
 * The first lines of what kills a task in the kernel: page faults (arch/x86/mm/fault.c), BUG() (lib/bug.c),
 * traps (arch/x86/kernel/traps.c), and of die() itself: `Oops: 0002 [#1] ...`, `invalid opcode: 0000 [#1]
 * ...`, which 6.9 put `Oops: ` in front of. What stands before the number can be any sentence: `general
 * protection fault, probably for non-canonical address 0x...: 0000 [#1]`.
 */
const OOPS: readonly RegExp[] = [
  /^BUG: /,
  /^kernel BUG at /,
  /^(Oops: )?general protection fault/,
  /^(traps: )?PANIC: /,
  /^kernel tried to execute NX-protected page/,
  /^Unable to handle kernel /,
  /: [0-9a-f]{4} \[#\d+\]/,
];
/** Complaints that a kernel may survive: watchdogs, hung tasks, stalls, an unknown NMI, SysRq-c. */
const COMPLAINT: readonly RegExp[] = [
  /^watchdog: BUG: /,
  /^(NMI )?watchdog: Watchdog detected hard LOCKUP/,
  /^INFO: task .* blocked for more than /,
  /^(rcu: )?INFO: \w+ (detected|self-detected) /,
  /^Uhhuh\. NMI received for unknown reason /,
  /^sysrq: Trigger a crash/,
];
const WARNING = /^WARNING: CPU: /;
/** What an oops or a warning ends with: the next one is another. */
const END = /^---\[ end trace/;

/** What has been seen of the kernel's death so far. */
interface Words {
  panic: string | undefined;
  oops: string | undefined;
  warning: string | undefined;
  complaint: string | undefined;
  hasEnded: boolean;
}

function readLine(words: Words, line: string): void {
  const matches = (patterns: readonly RegExp[]): boolean => patterns.some((pattern) => pattern.test(line));
  if (PANIC.test(line)) words.panic ??= line;
  else if (END.test(line)) words.hasEnded = true;
  else if (WARNING.test(line)) words.warning = line;
  else if (matches(OOPS)) {
    if (words.oops !== undefined && !words.hasEnded) return;
    words.oops = line;
    words.hasEnded = false;
  } else if (matches(COMPLAINT)) words.complaint = line;
}

/**
 * Why the kernel died, in its own words: what panic() was called with, or, if that was because of an oops or
 * a warning, the first line of this. With `kernel.panic_on_oops` a crash kernel is started before panic()
 * says anything. Only the kernel's own records count, and only the last oops.
 *
 * @returns one line; undefined if there is none such in the log
 */
export function panicReason(records: Iterable<Pick<LogRecord, 'text' | 'facility'>>): string | undefined {
  const words: Words = {
    panic: undefined,
    oops: undefined,
    warning: undefined,
    complaint: undefined,
    hasEnded: false,
  };
  for (const { text, facility } of records) {
    if (facility === 0) for (const line of text.split('\n')) readLine(words, line);
  }
  const { panic, oops, warning, complaint } = words;
  const said = panic === undefined ? '' : (PANIC.exec(panic)?.[1] ?? '');
  if (AFTER_OOPS.test(said)) return oops ?? panic;
  if (AFTER_WARNING.test(said)) return warning ?? panic;
  return panic ?? oops ?? complaint;
}

/**
 * Lines of the dump of registers and calls that follows the first words of an oops (show_regs, show_stack,
 * print_modules).
 */
const DUMP: readonly RegExp[] = [
  /^(Modules linked in|CPU|Hardware name|RIP|RSP|R[A-D1-9S][X0-9IP]|FS|CS|DR\d|CR\d|PKRU|Code|Call Trace|Workqueue|Tainted)\b/,
  /^\s|^ ?<\/?[A-Z]+>|^#PF: |^PGD |^---\[ |^-+\[ cut here|^Kernel Offset: /,
];

/**
 * The kernel's last words where no line says why it died: the last one that is not part of a dump of
 * registers.
 * @returns undefined for an empty log
 */
export function lastWords(records: readonly Pick<LogRecord, 'text' | 'facility'>[]): string | undefined {
  const own = records.filter(({ facility }) => facility === 0).flatMap(({ text }) => text.split('\n'));
  return (
    own.findLast((line) => line.trim() !== '' && !DUMP.some((pattern) => pattern.test(line))) ?? own.at(-1)
  );
}
