import { ROOM_REMEDY } from './images-room.ts';

/** What can be done about a kind of reason. */
interface Advice {
  /** Sentences of this kind, as they follow after "the process". */
  readonly pattern: RegExp;
  readonly advice: string;
}

const KERNEL_OBJECT =
  'something that the program has from the kernel cannot be made again: look for a setting that makes it do without';

const MOMENT = 'a matter of the moment at which the kernel died: nothing is wrong with the program';

const OUT_OF_SWAP = 'keep its pages out of swap: MemorySwapMax=0 for the unit, mlockall(2), swapoff';

const DAMAGED =
  'the memory that describes it is damaged, which may be what killed the kernel: it has to be started anew';

const MAY_BREAK =
  'With `otherworld protect --allow-loss connections`, or connections = "break" under [losses], it comes back all the same, ' +
  'and finds that the connection was reset';

/** The first that matches counts: what is special stands before what is general. */
const table: readonly Advice[] = [
  {
    pattern: /^its images need |^its images could not be written: .*ENOSPC|^has no room for its images/,
    advice: ROOM_REMEDY,
  },
  {
    pattern: /^is tied to |^belongs together with /,
    advice: 'it comes back when what it belongs to does: see the reasons of that process',
  },
  {
    pattern: /changes while it is read/,
    advice: MOMENT,
  },
  {
    pattern: /at its other end, may not lose it/,
    advice: `${MOMENT}. With \`otherworld protect --allow-loss connections\` for the processes at both ends they come back all the same, and find that the connection was reset`,
  },
  {
    pattern: /; another socket has the same addresses/,
    advice: MOMENT,
  },
  {
    pattern:
      /worked on when the kernel died: its two ends|moved while it was looked at|first data \(TCP Fast Open\)|was changing it|no descriptor for it|of its choice, in a sandbox/,
    advice: MOMENT,
  },
  {
    pattern: /which is not in the same sandbox|being made, in a sandbox/,
    advice: `a service in a sandbox is restored while the system boots, after others, and the ends of such a connection wait for each other: over the loopback, and for two minutes at least. ${MAY_BREAK}; or a drop-in can set back its sandbox, PrivateTmp= and the like (systemd.exec(5))`,
  },
  {
    pattern: /by TCP to|a TCP connection to|TCP connection that was being worked on/,
    advice: `${MOMENT}. ${MAY_BREAK}`,
  },
  {
    pattern:
      /TCP connection (over several paths|with urgent data|with time stamps|with a key|that is being opened)/,
    advice: `${KERNEL_OBJECT}. ${MAY_BREAK}`,
  },
  {
    pattern: /cgroup whose traffic is filtered/,
    advice:
      'the filter would no longer see the sockets: without IPAddressAllow=, IPAddressDeny=, IPAccounting= and ' +
      'RestrictNetworkInterfaces= of systemd.resource-control(5) the program comes back',
  },
  {
    pattern: /UDP socket connected|network interface|multicast groups|transparent socket|anycast/,
    advice:
      'the network comes up after the processes: the program must not bind to an interface or connect a UDP socket',
  },
  {
    pattern:
      /which is not protected|is not protected$|a process that is not protected|of which nothing is known|that others may hold/,
    advice:
      'protect the other process too (`otherworld protect`), or run the program so that it shares nothing with it: ' +
      'as a service, or under tmux or screen that is protected',
  },
  {
    pattern: /in a cgroup that is not there yet/,
    advice:
      'the service manager makes cgroups when the system boots, after the processes are there: a service in a sandbox comes ' +
      'back later, and may have files of the cgroup of its unit open',
  },
  {
    pattern: /by which it would move processes as root/,
    advice: 'cgroup.procs and cgroup.threads have to be closed when they are not written to',
  },
  {
    pattern: /seccomp/,
    advice:
      'a seccomp filter comes back if it decides by itself: strict mode, and filters that ask a supervisor, are set up by the ' +
      'program or by what has started it, which may have a setting for it',
  },
  {
    pattern: /its sandbox has|no sandbox any more|sandbox was not made/,
    advice:
      'a service comes back into the sandbox that its unit makes now: restart the service when its unit has been changed, so ' +
      'that it runs in that; what a program does to its namespaces itself does not come back',
  },
  {
    pattern: /where CRIU before 4/,
    advice:
      'services come back into their sandboxes with CRIU 4 (Debian 13). With the older one a drop-in can set back PrivateTmp=, ' +
      'PrivateDevices=, ProtectSystem=, ProtectHome=, ProtectHostname= and the like (systemd.exec(5))',
  },
  {
    pattern: /unix socket connected to .*, which cannot be made: that is bound later/,
    advice:
      'the file of the socket was renamed after it was bound, and CRIU connects by name: let the server bind it under the name ' +
      'that its clients use, or the clients connect to the name that it was bound as',
  },
  {
    pattern: /others than root can write|that is bound later|JoinsNamespaceOf/,
    advice:
      'in its sandbox a service comes back without sockets of which the file is deleted, and without connections by name to ' +
      'sockets, where others than root can write (/tmp, or the RuntimeDirectory= of a service with User=), and without what it ' +
      'shares by JoinsNamespaceOf= (systemd.exec(5))',
  },
  {
    pattern: /sandbox/,
    advice:
      'a service comes back into its sandbox alone and without links to what is outside: start what shares its pipes or ' +
      'sockets within the same unit',
  },
  {
    pattern: /(mnt|uts|ipc|mount) namespace/,
    advice:
      'containers do not come back yet. The mount and UTS namespaces of an installed service do, and an IPC namespace with nothing ' +
      'in it, if all of its processes are in them and nobody else, and otherworld.toml has no sandboxes = "refuse" under ' +
      '[services]; or a drop-in can set back PrivateTmp=, PrivateDevices=, PrivateIPC=, ProtectSystem=, ProtectHome=, ' +
      'ProtectHostname= and the like (systemd.exec(5))',
  },
  {
    pattern: /namespace/,
    advice:
      'containers do not come back yet: for a service, a drop-in can set back PrivateUsers=, PrivateNetwork=, PrivateIPC= and the ' +
      'like (systemd.exec(5))',
  },
  {
    pattern: /AppArmor|SELinux|Landlock|PR_MDWE_NO_INHERIT/,
    advice:
      'the confinement cannot be given again: without it the program comes back (aa-disable, a setting of the unit)',
  },
  {
    pattern: /terminal input audited/,
    advice:
      'the auditing cannot be turned on again: disable= of pam_tty_audit(8) leaves out the user that the program is started as',
  },
  {
    pattern: /keyring/,
    advice:
      'KeyringMode= of the unit, and whoever puts keys there (pam_keyinit, kerberos), decide about the keyring',
  },
  {
    pattern:
      /requests in flight|io_uring that has something to do|whose next request waits for all before it|(ring|io_uring that) was being changed|(set|queue) \d+, which was being changed/,
    advice: MOMENT,
  },
  {
    pattern: /io_uring that has taken \d+ requests|io_urings? (that )?takes? \d+ s/,
    advice: 'a program that is started anew counts from 0: restart it when that can be done',
  },
  {
    pattern: /socket of MPTCP/,
    advice:
      'let the program make sockets of TCP: a setting of its own (GODEBUG=multipathtcp=0 for programs in Go, whose servers ' +
      'listen with MPTCP since 1.24), or sysctl net.mptcp.enabled=0 before it starts',
  },
  {
    pattern: /kernel\.io_uring_disabled is/,
    advice:
      'sysctl kernel.io_uring_disabled=0, and nothing else in /etc/sysctl.d, or restart the program: it then does without io_uring',
  },
  {
    pattern: /io_uring/,
    advice:
      'let the program do without io_uring: a setting of its own, or sysctl kernel.io_uring_disabled=2 before it starts (kernel 6.6)',
  },
  {
    pattern: /asynchronous I\/O|io_setup/,
    advice: 'let the program do without kernel AIO (io_setup): most have a setting for it',
  },
  {
    pattern: /tried with Linux 6\.12 only/,
    advice: `no setting of this kernel's swap helps: ${OUT_OF_SWAP}`,
  },
  {
    pattern:
      /swap.*(damaged|which differs|in use like that|is not within it|belong|twice|counts? |counted|areas$)/,
    advice: DAMAGED,
  },
  {
    pattern: /is poisoned|a poisoned page/,
    advice: 'the memory or the disk has failed there (dmesg tells which): its content is lost',
  },
  {
    pattern: /swap.*(the only one of its kind|on another (disk|file system)|not found|told from other disks)/,
    advice:
      'the disk of a swap area has to be there after a panic as before, without a copy of it: swap to a partition with an id ' +
      `of its own (sfdisk --part-uuid), or to a virtio or NVMe disk; or ${OUT_OF_SWAP}`,
  },
  {
    pattern: /swap/,
    advice:
      'swap to a partition, or to a file on ext4 or xfs, without zram, zswap, LVM or encryption; ' +
      `or ${OUT_OF_SWAP}`,
  },
  {
    pattern:
      /pages are on the disk only|of which the disk may not have all|runs a program that is in memory only/,
    advice: 'restart programs whose files were replaced or deleted (needrestart tells which)',
  },
  {
    pattern:
      /vector registers (cannot be told|saved by the kernel)|rights to them|(on|off) a CPU, and|on CPU \d+, and|on its way into or out of|about to go on/,
    advice: MOMENT,
  },
  {
    pattern: /vector registers|floating-point modes|its registers are there/,
    advice:
      'before a panic, otherworld doctor tells whether stage zero can save the registers of every CPU and what it lacks ' +
      '(docs/stage-zero.md); without it, what must come back is better in a process that waits most of the time',
  },
  {
    pattern: /CLONE_SYSVSEM/,
    advice:
      'threads that the C library makes undo their operations on semaphores together: others do not come back',
  },
  {
    pattern: /which went with the kernel|System V semaphore|message queue/,
    advice:
      'System V and POSIX objects that outlive their users went with the kernel: let the program make them anew',
  },
  {
    pattern: /hugetlbfs/,
    advice: 'let the program use transparent huge pages instead of hugetlbfs',
  },
  {
    pattern: /traced by a debugger|uprobes|user events|breakpoints/,
    advice: 'end debuggers and tracers when they are not needed',
  },
  {
    pattern: /\bterminal\b|line discipline|\/dev\/pts\/|\/dev\/tty/,
    advice: 'run it under tmux or screen and protect that, or without a terminal',
  },
  {
    pattern: /device|driver/,
    advice:
      'what a driver keeps for an open device cannot be read: the program must do without, or open it only when needed',
  },
  {
    pattern: /unix socket|SCM_RIGHTS|netlink socket/,
    advice:
      'what was on its way in a socket cannot be made again: it is a matter of the moment, or of a setting of the program',
  },
  {
    pattern:
      /tags in its addresses|AMX|CPUID|time stamp counter|I\/O ports|descriptor table|speculative execution|shadow stack/,
    advice:
      'a setting of the processor that the program, its runtime or its starter has asked for: it comes back without',
  },
  {
    pattern: /core scheduling/,
    advice:
      'what sets a cookie for it (prctl PR_SCHED_CORE, often a sandbox or a container) has to do without',
  },
  {
    pattern: /scheduling policy/,
    advice: 'another scheduling policy comes back: chrt(1), CPUSchedulingPolicy= of the unit',
  },
  {
    pattern: /32-bit/,
    advice: '32-bit programs do not come back: the 64-bit one does',
  },
  {
    pattern: /has ended (with exit code|by signal)/,
    advice: 'it is dead already, and keeps others back until its parent waits for it',
  },
  {
    pattern:
      /in the middle of execve|shares its address space|in execve|has not left vfork|was about to end|was being killed|that was ending|cannot be told/,
    advice: MOMENT,
  },
  {
    pattern: /open (on|in) an? .*(file system|mount namespace)/,
    advice: 'only local file systems of the initial mount namespace are there when processes come back',
  },
  {
    pattern: /is another file than before|is not there|bytes instead of|which has more than one name/,
    advice: 'the disk does not have the file that the process had: it has to be started anew',
  },
  {
    pattern: /^needs \d+ MiB/,
    advice:
      'reserve more memory with crashkernel=, protect less, or look whether all old memory was taken back',
  },
  {
    pattern: /^criu: |^criu ended/,
    advice: "CRIU's own log is restore.log in the images of the incident, if images.keep leaves them",
  },
  {
    pattern: /which CRIU before \d/,
    advice: 'a newer CRIU has it (Debian 13)',
  },
  {
    pattern: /^thread \d+ (was in|waits in|was on)/,
    advice: MOMENT,
  },
  {
    pattern:
      /damaged|impossible|cannot be read|but the kernel counted|does not agree|in the bitmap|without a file/,
    advice: DAMAGED,
  },
  {
    pattern: /^(\.\.\. |has |is |uses |shares |maps |may |runs |the memory area )/,
    advice: KERNEL_OBJECT,
  },
];

/** @returns what to do about a reason; undefined if there is nothing to say that the reason does not */
export function adviceFor(reason: string): string | undefined {
  return table.find(({ pattern }) => pattern.test(reason))?.advice;
}
