import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { suite, test } from 'node:test';
import { BindError } from '../../src/vmcore/errors.ts';
import type { Fields, StructDecl } from '../../src/vmcore/view.ts';
import { openFixture, type Release, releases } from '../vmcore/fixtures.ts';
import { MadeKernel } from '../vmcore/made-kernel.ts';

const root = join(import.meta.dirname, '../..');

/**
 * A call of `struct` with a name that is written there, type arguments or not; not a method of something
 * else.
 */
const DECLARATION = /(?<![\w.])struct\s*(?:<[^(]*>)?\(\s*(['"`])(?<name>\w+)\1/g;

/** Where sources outside of the tests declare which structure. */
const places = globSync('{src,lab,bench}/**/*.ts', { cwd: root }).flatMap((file) =>
  [...readFileSync(join(root, file), 'utf8').matchAll(DECLARATION)].map((match) => ({
    file,
    name: match.groups?.name ?? '',
  })),
);

function isDeclaration(value: unknown): value is StructDecl<Fields> {
  return typeof value === 'object' && value !== null && 'name' in value && 'fields' in value;
}

/** Every declaration that is exported. */
const declarations = new Map<string, StructDecl<Fields>>();
for (const file of globSync('src/linux/{,arch/*/}*.ts', { cwd: root })) {
  const exported: Record<string, unknown> = await import(join(root, file));
  for (const value of Object.values(exported)) if (isDeclaration(value)) declarations.set(value.name, value);
}

/** What each module of src/linux imports there, types too. */
const imports = new Map(
  globSync('src/linux/**/*.ts', { cwd: root }).map((file) => {
    const specifiers = readFileSync(join(root, file), 'utf8').matchAll(/ from '(\.[^']+)'/g);
    const targets = Array.from(specifiers, ([, specifier = '']) => join(dirname(file), specifier));
    return [file, targets.filter((target) => target.startsWith('src/linux/'))] as const;
  }),
);

/** A way from a module to itself; undefined if there is none. */
function cycleFrom(start: string): readonly string[] | undefined {
  const ways = (imports.get(start) ?? []).map((file) => [start, file]);
  const seen = new Set<string>();
  for (let way = ways.pop(); way !== undefined; way = ways.pop()) {
    const last = way.at(-1) ?? '';
    if (last === start) return way;
    if (seen.has(last)) continue;
    seen.add(last);
    for (const file of imports.get(last) ?? []) ways.push([...way, file]);
  }
  return undefined;
}

/** What Debian does not build; and lists of areas, which 6.1 took away. */
const unbuilt = [
  ...['mm_struct.lamMask', 'pipe_inode_info.watch_queue', 'task_struct.core_cookie'],
  ...['task_struct.uclampMin', 'task_struct.uclampMax', 'mm_struct.mmap', 'vm_area_struct.vm_next'],
];
const ofInet = (member: string): string => `inet_sock.${member}`;
const ofInet6 = (member: string): string => `ipv6_pinfo.${member}`;

/**
 * Optional members that a release does not have, or that Debian does not build. What is misspelt would be
 * among them, and never be read.
 */
const lacking: Readonly<Record<Release, readonly string[]>> = {
  debian12: [
    ...unbuilt,
    // 6.4, 6.7, 6.8, 6.12, and the others later than 6.1
    ...['task_struct.user_event_mm', 'thread_struct.features', 'task_struct.rseq_len', 'tcp_sock.ao'],
    'tcp_sock.tcp_usec_ts',
    ...['inet_sock.inet_flags', 'inet_sock.ipv6_fl_list', 'dentry.d_children', 'task_struct.custom_slice'],
    'orc_entry.signal',
  ],
  debian13: [
    ...unbuilt,
    // CONFIG_USER_EVENTS, CONFIG_TCP_AO, CONFIG_ANON_VMA_NAME: not built
    ...['task_struct.user_event_mm', 'tcp_sock.ao', 'vm_area_struct.anon_name'],
    // 6.2 counts elsewhere, 6.8 made lists of trees
    ...['task_struct.rssCounts', 'mnt_namespace.list', 'dentry.d_subdirs'],
    // 6.4 made it a type
    'orc_entry.end',
    // 6.4 to 6.8 made bits of one word of these (inet_flags)
    ...['bind_address_no_port', 'cmsg_flags', 'freebind', 'mc_all', 'mc_loop', 'recverr'].map(ofInet),
    ...['recverr_rfc4884', 'transparent'].map(ofInet),
    ...['autoflowlabel', 'autoflowlabel_set', 'dontfrag', 'mc_all', 'mc_loop', 'recverr'].map(ofInet6),
    ...['recverr_rfc4884', 'sndflow', 'ipv6_fl_list'].map(ofInet6),
  ],
};

/** Structures that no fixture has: they were declared after the fixtures were made. */
const unread = ['proc_fs_info'];

/** The same, but that `*.types.zst` of the fixtures has them. */
const later = [
  ...['block_device', 'cgroup_file_ctx', 'gendisk', 'kernfs_open_file', 'partition_meta_info', 'psi_trigger'],
  ...['seq_file', 'splice_desc', 'swap_extent', 'swap_info_struct'],
  ...['io_ring_ctx', 'io_rings', 'io_uring_task'],
];
/** Of those, optional members that a release does not have: pages of zeros came with 6.12. */
const lackingLater: Readonly<Record<Release, readonly string[]>> = {
  debian12: ['swap_info_struct.zeromap', 'io_ring_ctx.clockid', 'io_ring_ctx.napi_enabled'],
  debian13: ['io_ring_ctx.lockedFreeRequests', 'io_ring_ctx.io_bl'],
};

/** Structures that only other releases have. */
const missing: Readonly<Record<Release, readonly string[]>> = {
  // 6.2 made pcpu_hot, 6.4 module_memory, and skb_frag is a bio_vec
  debian12: ['module_memory', 'pcpu_hot', 'skb_frag', ...unread, ...later],
  // 6.4 took module_layout away
  debian13: ['module_layout', ...unread, ...later],
};

suite('structure declarations', () => {
  test('are found in the sources', () => {
    const find = (text: string): (string | undefined)[] =>
      [...text.matchAll(DECLARATION)].map((match) => match.groups?.name);
    assert.deepEqual(find("const a = struct('one', {}); b(struct<\n  Fields\n>(\n  'two',"), ['one', 'two']);
    assert.deepEqual(find("koffi.struct('three', {}); construct('four')"), []);
    assert.ok(places.length > 100, `${places.length}`);
  });

  test('are one for each structure', () => {
    const files = Map.groupBy(places, ({ name }) => name);
    const twice = [...files].filter(([, where]) => where.length > 1);
    assert.deepEqual(
      twice.map(([name, where]) => [name, where.map(({ file }) => file)]),
      [],
    );
  });

  test('are where the kernel headers have their modules, and exported', () => {
    const elsewhere = places.filter(({ file }) => !/^src\/linux\/(arch\/[^/]+\/)?[^/]+$/.test(file));
    assert.deepEqual(elsewhere, []);
    assert.deepEqual(
      [...declarations.keys()].toSorted(),
      [...new Set(places.map(({ name }) => name))].toSorted(),
    );
  });

  test('are in modules that do not import each other in a circle, nor those that gather from several', () => {
    assert.ok(imports.size > 60, `${imports.size}`);
    assert.deepEqual(
      [...imports.keys()].flatMap((file) => cycleFrom(file) ?? []),
      [],
    );
    const isReader = (file: string): boolean => file.startsWith('src/linux/readers/');
    const upwards = [...imports].filter(([file, targets]) => !isReader(file) && targets.some(isReader));
    assert.deepEqual(upwards, []);
  });

  for (const release of releases) {
    test(`have the optional members in ${release} that its kernel has, each known by name`, () => {
      const kernel = openFixture(release);
      const absent = [...declarations.values()].flatMap((decl) =>
        missing[release].includes(decl.name)
          ? []
          : Object.entries(decl.fields)
              .filter(([key, { isOptional }]) => isOptional && !kernel.bind(decl).has(key))
              .map(([key]) => `${decl.name}.${key}`),
      );
      assert.deepEqual(absent.toSorted(), lacking[release].toSorted());
    });

    test(`that are later than the dump fit the kernel of ${release}`, () => {
      const kernel = new MadeKernel(release);
      const absent = later.flatMap((name) => {
        const decl = declarations.get(name);
        assert.ok(decl !== undefined, name);
        const bound = kernel.bind(decl);
        bound.bindAll();
        const keys = Object.entries(decl.fields).filter(([, { isOptional }]) => isOptional);
        return keys.filter(([key]) => !bound.has(key)).map(([key]) => `${name}.${key}`);
      });
      assert.deepEqual(absent, lackingLater[release]);
    });

    test(`fit the kernel of ${release}, with all their members`, () => {
      const kernel = openFixture(release);
      const problems: string[] = [];
      for (const decl of declarations.values()) {
        if (missing[release].includes(decl.name)) {
          assert.equal(kernel.layouts.sizeOf(decl.name), undefined, decl.name);
          continue;
        }
        try {
          kernel.bind(decl).bindAll();
        } catch (error) {
          assert.ok(error instanceof BindError);
          problems.push(error.message);
        }
      }
      assert.deepEqual(problems, []);
    });
  }
});
