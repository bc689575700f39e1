import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';

const root = join(import.meta.dirname, '../..');
/** Parts that are one folder deeper. */
const NESTED = new Set(['criu']);

/** Folders of src/ that are parts. */
const folders = globSync('src/*/', { cwd: root })
  .map((folder) => folder.replace(/^src\//, '').replace(/\/$/, ''))
  .flatMap((name) =>
    NESTED.has(name)
      ? globSync(`src/${name}/*/`, { cwd: root }).map((inner) => inner.slice(4).replace(/\/$/, ''))
      : [name],
  );

/** The table of docs/architecture.md: what each part may import; undefined: everything. */
const documented = new Map(
  [
    ...readFileSync(join(root, 'docs/architecture.md'), 'utf8').matchAll(
      /^\| `src\/([^`]+)\/` \|.*\| (.*) \|$/gm,
    ),
  ].map(([, part = '', knows = '']) => {
    const names = knows.replace(/\([^)]*\)/g, '').split(',');
    const known = names.map((name) => name.trim()).filter((name) => name !== 'nothing');
    return [part, known.includes('everything') ? undefined : known] as const;
  }),
);

interface Override {
  readonly includes: readonly string[];
  readonly linter?: {
    readonly rules?: {
      readonly style?: {
        readonly noRestrictedImports?: {
          readonly level: string;
          readonly options: { readonly patterns: readonly { readonly group: readonly string[] }[] };
        };
      };
    };
  };
}

/** What the linter keeps each part from importing. */
const { overrides } = JSON.parse(readFileSync(join(root, 'biome.json'), 'utf8')) as {
  overrides: readonly Override[];
};
const forbidden = new Map(
  overrides.flatMap(({ includes, linter }) => {
    const rule = linter?.rules?.style?.noRestrictedImports;
    if (rule?.level !== 'error') return [];
    const denied = rule.options.patterns.flatMap(({ group }) => group);
    return includes.map((pattern) => [pattern, denied] as const);
  }),
);

suite('the layers', () => {
  test('have a row in docs/architecture.md for each part, and no other', () => {
    assert.deepEqual([...documented.keys()].toSorted(), folders.toSorted());
  });

  test('run down the table', () => {
    const order = [...documented.keys()];
    for (const [part, known] of documented)
      for (const one of known ?? [])
        assert.ok(order.indexOf(one) > order.indexOf(part), `${part} knows ${one}`);
  });

  for (const [part, known] of documented) {
    if (known === undefined) continue;
    test(`let ${part} import what the table says, and the linter refuses the rest`, () => {
      const denied = [...folders, 'lab'].filter((other) => other !== part && !known.includes(other));
      assert.deepEqual(
        forbidden.get(`src/${part}/**`)?.toSorted(),
        denied.map((other) => `**/${other}/**`).toSorted(),
      );
    });
  }
});
