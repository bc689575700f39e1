/**
 * Compares constants that are not in a kernel's BTF with the sources of a kernel of a series, and lists what
 * differs. To be run before a series is added to src/linux/kernel-releases.ts:
 *
 *   node test/linux/kernel-constants.ts /usr/src/linux-source-6.12 6.12
 *
 * What the table names and is not here is code, and is read by people.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemCalls } from '../../src/arch/x86-64/system-calls.ts';
import { fmode } from '../../src/linux/file.ts';
import { FL } from '../../src/linux/filelock.ts';
import { FS_REQUIRES_DEV, SB_POSIXACL, SB_RDONLY } from '../../src/linux/fs.ts';
import { HRTIMER_ENQUEUED } from '../../src/linux/hrtimer.ts';
import { MARK } from '../../src/linux/inotify.ts';
import type { Series } from '../../src/linux/kernel-releases.ts';
import { KEY_GONE } from '../../src/linux/key.ts';
import { MMF, VM, VM_HIGH } from '../../src/linux/mm.ts';
import { socketFlag } from '../../src/linux/net.ts';
import { NETLINK_F } from '../../src/linux/netlink.ts';
import { PAGE_MAPPING } from '../../src/linux/readers/page-owner.ts';
import { PF, PFA, TIF, TS_COMPAT, taskState } from '../../src/linux/sched.ts';
import { SIGNAL } from '../../src/linux/signal.ts';
import { ttyFlag } from '../../src/linux/tty.ts';
import { dirtyBefore612, dirtySince612 } from '../../src/linux/writeback.ts';

/** The kernel's names for macros and enumerators, and what is taken for them. */
interface Believed {
  /** Where the kernel has them. */
  readonly sources: readonly string[];
  readonly values: Readonly<Record<string, number>>;
  /** The series that they are taken for; all if undefined. */
  readonly only?: Series;
}

const believed: readonly Believed[] = [
  {
    sources: ['include/linux/sched.h', 'arch/x86/include/asm/thread_info.h'],
    values: {
      PF_EXITING: PF.exiting,
      PF_IO_WORKER: PF.ioWorker,
      PF_SIGNALED: PF.signaled,
      PF_MCE_PROCESS: PF.mceProcess,
      PF_USER_WORKER: PF.userWorker,
      PF_MEMALLOC_NOIO: PF.memallocNoio,
      PF_LOCAL_THROTTLE: PF.localThrottle,
      PF_KTHREAD: PF.kthread,
      PF_MCE_EARLY: PF.mceEarly,
      PFA_NO_NEW_PRIVS: PFA.noNewPrivs,
      PFA_SPEC_SSB_DISABLE: PFA.specSsbDisable,
      TASK_INTERRUPTIBLE: taskState.interruptible,
      TASK_UNINTERRUPTIBLE: taskState.uninterruptible,
      __TASK_STOPPED: taskState.stopped,
      __TASK_TRACED: taskState.traced,
      EXIT_DEAD: taskState.exitDead,
      EXIT_ZOMBIE: taskState.exitZombie,
      TASK_WAKEKILL: taskState.wakeKill,
      TASK_NOLOAD: taskState.noLoad,
      TASK_NEW: taskState.new,
      TIF_SIGPENDING: TIF.sigpending,
      TIF_SSBD: TIF.ssbd,
      TIF_SPEC_IB: TIF.specIb,
      TIF_SPEC_L1D_FLUSH: TIF.specL1dFlush,
      TIF_NEED_FPU_LOAD: TIF.needFpuLoad,
      TIF_NOCPUID: TIF.nocpuid,
      TIF_NOTSC: TIF.notsc,
      TIF_IO_BITMAP: TIF.ioBitmap,
      TIF_ADDR32: TIF.addr32,
      TS_COMPAT,
    },
  },
  {
    sources: ['include/linux/sched/signal.h', 'include/linux/sched/coredump.h'],
    values: {
      SIGNAL_STOP_STOPPED: SIGNAL.stopStopped,
      SIGNAL_STOP_CONTINUED: SIGNAL.stopContinued,
      SIGNAL_GROUP_EXIT: SIGNAL.groupExit,
      MMF_HAS_UPROBES: MMF.hasUprobes,
      MMF_DISABLE_THP: MMF.disableThp,
      MMF_HAS_MDWE: MMF.hasMdwe,
      MMF_HAS_MDWE_NO_INHERIT: MMF.mdweNoInherit,
      MMF_VM_MERGE_ANY: MMF.mergeAny,
    },
  },
  {
    sources: ['include/linux/mm.h', 'include/linux/page-flags.h'],
    values: {
      VM_READ: VM.read,
      VM_WRITE: VM.write,
      VM_EXEC: VM.exec,
      VM_SHARED: VM.shared,
      VM_MAYWRITE: VM.mayWrite,
      VM_MAYSHARE: VM.mayShare,
      VM_GROWSDOWN: VM.growsDown,
      VM_UFFD_MISSING: VM.uffdMissing,
      VM_PFNMAP: VM.pfnMap,
      VM_UFFD_WP: VM.uffdWp,
      VM_LOCKED: VM.locked,
      VM_IO: VM.io,
      VM_SEQ_READ: VM.seqRead,
      VM_RAND_READ: VM.randRead,
      VM_DONTCOPY: VM.dontCopy,
      VM_DONTEXPAND: VM.dontExpand,
      VM_LOCKONFAULT: VM.lockOnFault,
      VM_NORESERVE: VM.noReserve,
      VM_HUGETLB: VM.hugetlb,
      VM_SYNC: VM.sync,
      VM_WIPEONFORK: VM.wipeOnFork,
      VM_DONTDUMP: VM.dontDump,
      VM_MIXEDMAP: VM.mixedMap,
      VM_HUGEPAGE: VM.hugePage,
      VM_NOHUGEPAGE: VM.noHugePage,
      VM_MERGEABLE: VM.mergeable,
      VM_SEALED: VM_HIGH.sealed * 2 ** 32,
      PAGE_MAPPING_ANON: PAGE_MAPPING.anon,
      PAGE_MAPPING_KSM: PAGE_MAPPING.ksm,
    },
  },
  {
    sources: ['include/linux/fs.h', 'include/linux/filelock.h', 'include/linux/fsnotify_backend.h'],
    values: {
      FMODE_READ: fmode.read,
      FMODE_WRITE: fmode.write,
      FMODE_LSEEK: fmode.lseek,
      FMODE_PATH: fmode.path,
      FMODE_OPENED: fmode.opened,
      FMODE_STREAM: fmode.stream,
      SB_RDONLY: 2 ** SB_RDONLY,
      SB_POSIXACL: 2 ** SB_POSIXACL,
      FS_REQUIRES_DEV,
      FL_POSIX: FL.posix,
      FL_FLOCK: FL.flock,
      FL_DELEG: FL.delegation,
      FL_LEASE: FL.lease,
      FL_OFDLCK: FL.ofdlck,
      FSNOTIFY_MARK_FLAG_EXCL_UNLINK: MARK.exclUnlink,
      FSNOTIFY_MARK_FLAG_IN_ONESHOT: MARK.oneshot,
    },
  },
  {
    sources: ['include/linux/fs.h', 'include/linux/mm.h'],
    values: {
      VM_UFFD_MINOR_BIT: 32 + Math.log2(VM_HIGH.uffdMinorBefore66),
      I_DIRTY_SYNC: dirtyBefore612.sync,
      I_DIRTY_DATASYNC: dirtyBefore612.datasync,
      I_DIRTY_PAGES: dirtyBefore612.pages,
    },
    only: '6.1',
  },
  {
    sources: ['include/linux/fs.h', 'include/linux/mm.h'],
    values: {
      VM_UFFD_MINOR_BIT: 32 + Math.log2(VM_HIGH.uffdMinor),
      VM_SHADOW_STACK: VM_HIGH.shadowStack * 2 ** 32,
      I_DIRTY_SYNC: dirtySince612.sync,
      I_DIRTY_DATASYNC: dirtySince612.datasync,
      I_DIRTY_PAGES: dirtySince612.pages,
    },
    only: '6.12',
  },
  {
    sources: [
      'include/linux/net.h',
      'net/netlink/af_netlink.h',
      'include/linux/tty.h',
      'include/linux/key.h',
    ],
    values: {
      SOCK_PASSCRED: socketFlag.passCredentials,
      SOCK_PASSSEC: socketFlag.passSecurity,
      SOCK_PASSPIDFD: socketFlag.passPidfd,
      NETLINK_F_RECV_PKTINFO: NETLINK_F.pktinfo,
      NETLINK_F_BROADCAST_SEND_ERROR: NETLINK_F.broadcastError,
      NETLINK_F_RECV_NO_ENOBUFS: NETLINK_F.noEnobufs,
      NETLINK_F_LISTEN_ALL_NSID: NETLINK_F.listenAllNsid,
      NETLINK_F_CAP_ACK: NETLINK_F.capAck,
      NETLINK_F_EXT_ACK: NETLINK_F.extAck,
      NETLINK_F_STRICT_CHK: NETLINK_F.strictCheck,
      TTY_OTHER_CLOSED: ttyFlag.otherClosed,
      TTY_EXCLUSIVE: ttyFlag.exclusive,
      TTY_PTY_LOCK: ttyFlag.ptyLock,
      TTY_HUPPED: ttyFlag.hupped,
      KEY_FLAG_DEAD: KEY_GONE.dead,
      KEY_FLAG_REVOKED: KEY_GONE.revoked,
      KEY_FLAG_INVALIDATED: KEY_GONE.invalidated,
    },
  },
  {
    sources: ['arch/x86/include/asm/processor.h', 'arch/x86/kernel/fpu/xstate.c', 'include/linux/hrtimer.h'],
    values: { HRTIMER_STATE_ENQUEUED: HRTIMER_ENQUEUED },
  },
];

const DEFINE = /^\s*#\s*define\s+(\w+)\s+(.+?)\s*(?:\/\*.*)?$/gm;

/** The number that a macro's text stands for; undefined if it is none that is understood. */
function numberOf(text: string, defined: ReadonlyMap<string, string>, depth = 0): number | undefined {
  const plain = text
    .replace(/\(__force \w+\)/g, '')
    .replace(/\b(0x[0-9a-f]+|\d+)U?L*\b/gi, '$1')
    .replace(/\b_?BIT(?:UL)?\((\w+)\)/g, '2 ** $1')
    .replace(/(\d+)\s*<<\s*(\w+)/g, '$1 * 2 ** $2');
  if (depth > 8 || !/^[\w\s()|*]+$/.test(plain)) return undefined;
  let isKnown = true;
  const numbers = plain.replace(/\b[A-Za-z_]\w*\b/g, (name) => {
    const value = numberOf(defined.get(name) ?? '?', defined, depth + 1);
    if (value === undefined) isKnown = false;
    return String(value);
  });
  if (!isKnown) return undefined;
  const value: unknown = new Function(`return (${numbers.replaceAll('|', '+')})`)();
  return typeof value === 'number' ? value : undefined;
}

/**
 * Macros, and enumerators that count from 0 on. The first definition counts: later ones are for kernels
 * without an option.
 */
function definitions(source: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [, name = '', text = ''] of source.matchAll(DEFINE)) if (!found.has(name)) found.set(name, text);
  for (const [, body = ''] of source.matchAll(/\benum\s*\w*\s*\{([^}=]*)\}/g)) {
    const names = body.replace(/\/\*[\s\S]*?\*\//g, '').match(/\w+/g) ?? [];
    for (const [i, name] of names.entries()) if (!found.has(name)) found.set(name, String(i));
  }
  return found;
}

function compare(root: string, { sources, values }: Believed): string[] {
  const headers = sources.map((path) => join(root, path)).filter((path) => existsSync(path));
  const defined = definitions(headers.map((path) => readFileSync(path, 'utf8')).join('\n'));
  const prefixOf = (name: string): string => /^_*[A-Z]+_/.exec(name)?.[0] ?? name;
  return Object.entries(values).flatMap(([name, ours]) => {
    const text = defined.get(name);
    if (text === undefined) {
      // The release does not have it yet: no other of its kind may have its place.
      const other = [...defined].find(
        ([known, its]) =>
          !known.includes('__HOLE__') &&
          prefixOf(known) === prefixOf(name) &&
          numberOf(its, defined) === ours,
      );
      return other === undefined ? [] : [`${name} is not there, and ${ours} is ${other[0]}`];
    }
    const value = numberOf(text, defined);
    return value === ours ? [] : [`${name} is ${value ?? text}, not ${ours}`];
  });
}

function compareSyscalls(root: string): string[] {
  const table = readFileSync(join(root, 'arch/x86/entry/syscalls/syscall_64.tbl'), 'utf8');
  const rows = table.matchAll(/^(\d+)\s+(?:common|64)\s+(\w+)/gm);
  return [...rows].flatMap(([, number = '', name = '']) => {
    const ours = systemCalls.name(Number(number));
    return ours === name ? [] : [`system call ${number} is ${name}, not ${ours}`];
  });
}

const [root, series] = process.argv.slice(2);
if (root === undefined || series === undefined) throw new Error('usage: kernel-constants.ts SOURCE SERIES');
const groups = believed.filter(({ only }) => only === undefined || only === series);
const differences = [...groups.flatMap((group) => compare(root, group)), ...compareSyscalls(root)];
const count = groups.reduce((sum, { values }) => sum + Object.keys(values).length, 0);
process.stdout.write(
  [...differences, `${series}: ${count} constants, ${differences.length} differ\n`].join('\n'),
);
process.exitCode = differences.length === 0 ? 0 : 1;
