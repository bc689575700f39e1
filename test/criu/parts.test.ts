import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, it } from 'node:test';

const source = join(import.meta.dirname, '../../src');

/**
 * Everything that is loaded with a file below src/, itself included: files below src/, and packages by name.
 */
function loadedWith(entry: string): string[] {
  const found = new Set<string>();
  const waiting = [entry];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (found.has(file)) continue;
    found.add(file);
    if (!file.endsWith('.ts')) continue;
    const text = readFileSync(join(source, file), 'utf8');
    // A statement `import type` or `export type` is not there at run time.
    for (const [, name = ''] of text.matchAll(/^(?:import|export) (?!type )(?:[^;]*? from )?'([^']+)';$/gm)) {
      waiting.push(name.startsWith('.') ? relative(source, join(source, dirname(file), name)) : name);
    }
  }
  return [...found];
}

describe('the parts of criu', () => {
  it('of which the images know nothing of the restore, run no program and call no C', () => {
    const loaded = loadedWith('criu/images/index.ts');
    assert.ok(loaded.includes('criu/images/files/index.ts') && loaded.includes('@bufbuild/protobuf'));
    assert.deepEqual(
      loaded.filter((name) => /^criu\/restore|^koffi$|^node:(child_process|net)$/.test(name)),
      [],
    );
  });

  it('of which the restore writes no image', () => {
    const loaded = loadedWith('criu/restore/index.ts');
    assert.ok(loaded.includes('criu/restore/run-criu.ts') && loaded.includes('system/libc.ts'));
    assert.deepEqual(
      loaded.filter((name) => /protobuf|^criu\/images\/(index|image|write-images)\.ts$/.test(name)),
      [],
    );
  });

  it('do not burden who needs only a name of theirs', () => {
    for (const entry of [
      'report/images.ts',
      'crash-world/settle.ts',
      'crash-world/systemd/journal-streams.ts',
    ]) {
      const criu = loadedWith(entry).filter((name) => name.startsWith('criu/'));
      assert.deepEqual(criu, ['criu/restore/names.ts'], entry);
    }
  });
});
