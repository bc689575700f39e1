import { join } from 'node:path';
import { copyFiles } from '../lab/channel.ts';
import { inGuest, until } from '../lab/demo/scene.ts';
import type { Progress } from '../lab/progress.ts';
import { markdownTable } from './document.ts';
import { withGuest } from './guest.ts';
import { spread } from './timing.ts';

const GUEST_MIB = 2048;
/** Those of the guest in which the same applications go on after a panic: one image for both. */
const PACKAGES = [
  ...['attr', 'criu', 'numactl', 'procps', 'python3', 'socat', 'tmux'],
  ...['mariadb-server', 'apache2', 'libapache2-mod-php', 'php-apcu'],
];

const PLACES = ['memory', 'disk'] as const;
type Place = (typeof PLACES)[number];
type Seconds = Record<Place, number[]>;

/** The same work twice: on what is in memory alone, and on what is on the guest's disk. */
interface Work {
  readonly name: string;
  /** What the talk of 2008 says of it: how many times as fast it is in memory. */
  readonly talk: string;
  /** A shell script for each place; its time is measured in the guest. */
  script(place: Place): string;
  /** A shell script before it, whose time does not count. */
  before(place: Place): string;
}

interface Sizes {
  readonly pairs: number;
  readonly statements: number;
  readonly visits: number;
  readonly mebibytes: number;
}

const SIZES: Record<'quick' | 'whole', Sizes> = {
  quick: { pairs: 1, statements: 200, visits: 50, mebibytes: 32 },
  whole: { pairs: 5, statements: 2000, visits: 500, mebibytes: 256 },
};

/**
 * Applications that keep in memory what others write to a disk, as who outlives its kernel may: the same work
 * on both, in pairs.
 *
 * @returns Markdown
 */
export async function benchApplications(quick: boolean, progress: Progress): Promise<string> {
  const sizes = SIZES[quick ? 'quick' : 'whole'];
  const options = { memoryMiB: GUEST_MIB, arm: false, packages: PACKAGES };
  return withGuest('apps', options, progress, async (guest, { kernelRelease }) => {
    progress.step('filling tables, sessions and a process');
    const pid = await prepare(guest, sizes);
    const rows: string[][] = [];
    for (const work of allWork(sizes, pid)) {
      progress.step(work.name);
      rows.push(row(work, await measure(guest, work, sizes.pairs)));
    }
    return [
      `One guest of ${GUEST_MIB} MiB with 2 CPUs (Linux ${kernelRelease}); ${sizes.pairs} pairs in turn, each second one the other way round, after one that warms`,
      `up. Seconds are the guest's own: median, and from least to most. ${await describeSettings(guest)}`,
      'The disk is ext4 on virtio, which the lab does not let flush to that of the host: a real disk is slower. The talk (2008) had other machines, programs',
      'and disks: compare the direction.',
      '',
      markdownTable(['', 'in memory s', 'on disk s', 'disk to memory, in the same pair', 'the talk'], rows),
    ].join('\n');
  });
}

/** @returns the PID of the process that checkpoints are taken of */
async function prepare(guest: string, { statements, mebibytes }: Sizes): Promise<string> {
  await copyFiles(guest, join(import.meta.dirname, 'session.php'), `${guest}:/var/www/html/session.php`);
  await copyFiles(guest, join(import.meta.dirname, 'large-process.py'), `${guest}:/root/large-process.py`);
  const steps = [
    // Which waits until they are ready; the guest may be booting still.
    'systemctl start mariadb apache2',
    'install -d -m 1733 /dev/shm/sessions',
    'mariadb --execute "CREATE DATABASE bench"',
    ...PLACES.flatMap((place) => [
      `mariadb bench --execute "CREATE TABLE in_${place} (id INT PRIMARY KEY, word CHAR(64)) ENGINE=${place === 'memory' ? 'MEMORY' : 'InnoDB'}"`,
      `mariadb bench --delimiter=/ --execute "CREATE PROCEDURE fill_${place}(most INT) BEGIN DECLARE i INT DEFAULT 1; WHILE i <= most DO INSERT INTO in_${place} VALUES (i, SHA2(i, 256)); SET i = i + 1; END WHILE; END/"`,
      `seq ${statements} | sed "s/.*/INSERT INTO in_${place} VALUES (&, SHA2(&, 256));/" >/root/insert.${place}`,
      `seq ${statements} | sed "s/.*/UPDATE in_${place} SET word = REVERSE(word) WHERE id = &;/" >/root/update.${place}`,
      `seq ${statements} | sed "s/.*/SELECT word FROM in_${place} WHERE id = &;/" >/root/select.${place}`,
    ]),
  ];
  await inGuest(guest, `set -e; ${steps.join('\n')}`);
  const command = `python3 /root/large-process.py ${mebibytes} huge /root/ready`;
  const pid = await inGuest(guest, `setsid ${command} </dev/null >/dev/null 2>&1 & echo $!`);
  await until(guest, 'test -e /root/ready', 120);
  return pid.trim();
}

function allWork({ statements, visits, mebibytes }: Sizes, pid: string): Work[] {
  const tables = '1.5 to 140';
  const empty = (place: Place): string => `mariadb bench --execute "TRUNCATE in_${place}"`;
  const fill = (place: Place): string => `mariadb bench --execute "CALL fill_${place}(${statements})"`;
  const full = (place: Place): string =>
    `mariadb bench --execute "TRUNCATE in_${place}; BEGIN; CALL fill_${place}(${statements}); COMMIT"`;
  const client = (kind: string) => (place: Place) => `mariadb bench </root/${kind}.${place} >/dev/null`;
  const ask = (cookie: string) => (place: Place) =>
    `ab -q -l -n ${visits} ${cookie} "http://127.0.0.1/session.php?in=${place}" >/root/ab; grep -q "^Failed requests: *0$" /root/ab; if grep Non-2xx /root/ab; then exit 1; fi`;
  const none = (): string => 'find /dev/shm/sessions /var/lib/php/sessions -type f -delete';
  const images = (place: Place): string => (place === 'memory' ? '/dev/shm/images' : '/var/tmp/images');
  const dump = (place: Place): string =>
    `criu dump --tree ${pid} --images-dir ${images(place)} --log-file log --leave-running`;
  const clean = (place: Place): string => `rm -rf ${images(place)}; sync; mkdir ${images(place)}`;
  return [
    { name: `${statements} INSERTs of a client`, talk: tables, before: empty, script: client('insert') },
    { name: `${statements} INSERTs of a procedure in the server`, talk: tables, before: empty, script: fill },
    { name: `${statements} UPDATEs of a client`, talk: tables, before: full, script: client('update') },
    { name: `${statements} SELECTs of a client`, talk: tables, before: full, script: client('select') },
    {
      name: `${visits} visits of one PHP session`,
      talk: '1.25',
      before: none,
      script: ask('-C PHPSESSID=visitor'),
    },
    { name: `${visits} visits, each of a new PHP session`, talk: '1.25', before: none, script: ask('') },
    {
      name: `a checkpoint of a process with ${mebibytes} MiB by CRIU`,
      talk: '',
      before: clean,
      script: dump,
    },
    {
      name: 'the same, on the disk until it is all there (`sync -f`)',
      talk: '',
      before: clean,
      script: (place) => `${dump(place)}; sync -f ${images(place)}`,
    },
  ];
}

async function measure(guest: string, { name, before, script }: Work, pairs: number): Promise<Seconds> {
  const seconds: Seconds = { memory: [], disk: [] };
  for (let pair = 0; pair <= pairs; pair++) {
    for (const place of pair % 2 === 1 ? PLACES : PLACES.toReversed()) {
      const timed = `set -e\n${before(place)}\nbegan=$(date +%s%N)\n${script(place)}\necho $(($(date +%s%N) - began))`;
      const nanoseconds = Number((await inGuest(guest, timed, 600)).trim());
      if (!(nanoseconds > 0)) throw new Error(`${name}, ${place}: no time`);
      if (pair > 0) seconds[place].push(nanoseconds / 1e9);
    }
  }
  return seconds;
}

function row({ name, talk }: Work, { memory, disk }: Seconds): string[] {
  const ratios = disk.map((value, pair) => value / memory[pair]!);
  return [name, ...[memory, disk, ratios].map((values) => written(values)), talk];
}

function written(values: readonly number[]): string {
  const [middle, least, most] = spread(values).map((value) => value.toFixed(2));
  return `${middle} (${least} to ${most})`;
}

/** What decides how durable that is which is on the disk, as the server says. */
async function describeSettings(guest: string): Promise<string> {
  const names = [
    'version',
    'innodb_flush_log_at_trx_commit',
    'innodb_flush_method',
    'log_bin',
    'sync_binlog',
  ];
  const query = `SELECT ${names.map((name) => `@@${name}`).join(', ')}`;
  const values = (await inGuest(guest, `mariadb -NBe "${query}"`)).trim().split('\t');
  const php = (await inGuest(guest, 'php -r "echo PHP_VERSION;"')).trim();
  const settings = names.slice(1).map((name, i) => `\`${name}=${values[i + 1]}\``);
  return `MariaDB ${values[0]} as shipped (${settings.join(', ')}), a transaction for each statement; PHP ${php} in Apache with prefork.`;
}
