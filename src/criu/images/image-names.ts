/**
 * CRIU's image files: file name without `.img` and without the id, and the magic number in the second word
 * (in the first one for the inventory). Numbers: criu/include/magic.h, names: criu/image-desc.c, the same in
 * 3.17 and 4.1.
 */
export const imageMagic = {
  inventory: 0x58313116,
  pstree: 0x50273030,
  core: 0x55053847,
  ids: 0x54432030,
  mm: 0x57492820,
  pagemap: 0x56084025,
  'pagemap-shmem': 0x56084025,
  timens: 0x43114433,
  fs: 0x51403912,
  seccomp: 0x64413049,
  files: 0x56303138,
  fdinfo: 0x56213732,
  'reg-files': 0x50363636,
  'ext-files': 0x59255641,
  'ns-files': 0x61394011,
  pipes: 0x56513555,
  'pipes-data': 0x56453709,
  fifo: 0x58364939,
  'fifo-data': 0x59333054,
  unixsk: 0x54373943,
  inetsk: 0x56443851,
  netlinksk: 0x58005614,
  packetsk: 0x60454618,
  'sk-queues': 0x56264026,
  'tcp-stream': 0x51465506,
  eventfd: 0x44523722,
  eventpoll: 0x45023858,
  'eventpoll-tfd': 0x44433746,
  signalfd: 0x57323820,
  inotify: 0x48424431,
  'inotify-wd': 0x54562009,
  fanotify: 0x55096122,
  'fanotify-mark': 0x56506035,
  timerfd: 0x50493712,
  tty: 0x59433025,
  'tty-info': 0x59453036,
  'tty-data': 0x59413026,
  filelocks: 0x54323616,
  'remap-fpath': 0x59133954,
  'ghost-file': 0x52583605,
  memfd: 0x48453499,
  cgroup: 0x59383330,
  pidfd: 0x54435556,
} as const;

export type ImageName = keyof typeof imageMagic;

/** Images whose file name carries the id in hexadecimal (criu/image-desc.c: `%x`). */
export const hexadecimalIds: ReadonlySet<ImageName> = new Set<ImageName>(['ghost-file', 'tcp-stream']);

/**
 * Directory beside a group's images with those that a restore without crash procedures needs in their place.
 */
export const WITHOUT_PROCEDURES = 'without-procedures';
