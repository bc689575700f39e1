import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { suite, test } from 'node:test';
import { BindError } from '../../src/vmcore/errors.ts';
import type { Fields, StructDecl } from '../../src/vmcore/view.ts';
import { openFixture, type Release, releases } from '../vmcore/fixtures.ts';

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

/** Structures that only other releases have. */
const missing: Readonly<Record<Release, readonly string[]>> = {
  // 6.2 made pcpu_hot, 6.4 module_memory, and skb_frag is a bio_vec
  debian12: ['module_memory', 'pcpu_hot', 'skb_frag'],
  // 6.4 took module_layout away
  debian13: ['module_layout'],
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
