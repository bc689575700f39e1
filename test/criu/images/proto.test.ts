// Compares our descriptions of CRIU's images with those that come with CRIU; see test/fixtures/criu.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type DescFile, fromBinary } from '@bufbuild/protobuf';
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorProto,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';
import { restoreProblems } from '../../../src/criu/images/limits.ts';
import type { Credentials } from '../../../src/model/process.ts';
import type { LateOptionName } from '../../../src/model/socket-option.ts';
import { groupOf, processOf, threadOf } from '../processes.ts';

const generated = join(import.meta.dirname, '../../../src/criu/images/proto/gen');
const fixtures = join(import.meta.dirname, '../../fixtures/criu');

/** Names of tasks are bytes in ours: they need not be UTF-8. On the disk that is the same. */
const bytesForString = ['task_core_entry.comm', 'thread_core_entry.comm'];

const credentials = (change: Partial<Credentials>) => {
  const thread = threadOf(9);
  return groupOf([
    processOf(9, { threads: [{ ...thread, credentials: { ...thread.credentials, ...change } }] }),
  ]);
};

/** What is done about a field that CRIU 3.17 skips in silence. */
type Without =
  /** A group that needs it is refused: this one. */
  | { readonly refused: ReturnType<typeof groupOf> }
  /** Set on the socket itself. */
  | { readonly late: readonly LateOptionName[] }
  /** Nothing is done: what is lost. */
  | { readonly lost: string };

/** Fields of ours that CRIU 3.17 does not have. Everything else is in both releases. */
const since4: Readonly<Record<string, Without>> = {
  'creds_entry.no_new_privs': { refused: credentials({ noNewPrivs: true }) },
  'creds_entry.cap_amb': { refused: credentials({ capAmbient: 1n }) },
  'task_core_entry.membarrier_registration_mask': {
    refused: groupOf([processOf(9, { membarrierRegistrations: 2 })]),
  },
  'ip_opts_entry.pktinfo': { late: ['IP_PKTINFO', 'IPV6_RECVPKTINFO'] },
  'ip_opts_entry.tos': { late: ['IP_TOS'] },
  'ip_opts_entry.ttl': { late: ['IP_TTL'] },
  'inet_sk_entry.tcp_opts': { late: ['TCP_CORK', 'TCP_NODELAY'] },
  'tcp_opts_entry.cork': { late: ['TCP_CORK'] },
  'tcp_opts_entry.nodelay': { late: ['TCP_NODELAY'] },
  'tcp_opts_entry.keepcnt': { lost: 'nothing: sk_opts_entry has it too' },
  'tcp_opts_entry.keepidle': { lost: 'nothing: sk_opts_entry has it too' },
  'tcp_opts_entry.keepintvl': { lost: 'nothing: sk_opts_entry has it too' },
  'memfd_inode_entry.mode': {
    lost: 'the mode that fchmod(2) has given to a memfd, which gets the first one',
  },
};

/** `FdTypes` as CRIU writes it: `fd_types`. */
function snake(name: string): string {
  return name.replace(/(?<=[a-z0-9])(?=[A-Z])/g, '_').toLowerCase();
}

function isFile(value: unknown): value is DescFile {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'file';
}

async function ourFiles(): Promise<FileDescriptorProto[]> {
  const files: FileDescriptorProto[] = [];
  for (const name of readdirSync(generated)) {
    const module: Readonly<Record<string, unknown>> = await import(join(generated, name));
    const file = Object.values(module).find(isFile) ?? assert.fail(name);
    files.push(file.proto);
  }
  return files;
}

/** Messages and enumerations by their names, as CRIU writes them; nested ones by their own. */
class Types {
  readonly messages = new Map<string, DescriptorProto>();
  readonly enums = new Map<string, EnumDescriptorProto>();

  constructor(files: readonly FileDescriptorProto[]) {
    for (const { messageType, enumType } of files) {
      for (const one of enumType) this.enums.set(snake(one.name), one);
      for (const message of messageType) {
        this.messages.set(snake(message.name), message);
        for (const one of message.enumType) this.enums.set(snake(one.name), one);
      }
    }
  }
}

/** All that decides how a field is written and read. */
function shapeOf(field: FieldDescriptorProto) {
  return {
    name: field.name,
    number: field.number,
    type: FieldDescriptorProto_Type[field.type],
    of: snake(field.typeName.split('.').at(-1) ?? ''),
    label: FieldDescriptorProto_Label[field.label],
    packed: field.options?.packed ?? false,
    default: field.defaultValue,
  };
}

describe('our descriptions of images', async () => {
  const ours = new Types(await ourFiles());
  const fields = [...ours.messages].flatMap(([message, { field }]) =>
    field.map((one) => ({ message, one, path: `${message}.${one.name}` })),
  );

  for (const release of ['3.17', '4.1']) {
    const set = fromBinary(FileDescriptorSetSchema, readFileSync(join(fixtures, `${release}.binpb`)));
    const theirs = new Types(set.file);
    const theirField = (message: string, number: number) =>
      theirs.messages.get(message)?.field.find((field) => field.number === number);

    it(`have the fields of CRIU ${release}, by name, number, type and label`, () => {
      for (const { message, one, path } of fields) {
        const their = theirField(message, one.number);
        if (their === undefined) continue;
        const shape = shapeOf(one);
        const type = bytesForString.includes(path) ? 'STRING' : shape.type;
        assert.deepEqual({ ...shape, type }, shapeOf(their), path);
      }
    });

    it(`have what CRIU ${release} lacks only where that is known`, () => {
      const lacking = fields.filter(({ message, one }) => theirField(message, one.number) === undefined);
      assert.deepEqual(
        lacking.map(({ path }) => path).sort(),
        release === '3.17' ? Object.keys(since4).sort() : [],
      );
    });

    it(`lack nothing that CRIU ${release} requires`, () => {
      for (const [name, message] of ours.messages) {
        const required = (theirs.messages.get(name)?.field ?? []).filter(
          ({ label }) => label === FieldDescriptorProto_Label.REQUIRED,
        );
        const missing = required.filter(({ number }) => !message.field.some((one) => one.number === number));
        assert.deepEqual(
          missing.map((field) => field.name),
          [],
          name,
        );
      }
    });

    it(`have the values of enumerations as CRIU ${release} has them`, () => {
      for (const [name, { value }] of ours.enums) {
        const their = theirs.enums.get(name)?.value.map((one) => [one.name, one.number].join(' '));
        for (const one of value)
          assert.ok(their?.includes([one.name, one.number].join(' ')), `${name}.${one.name}`);
      }
    });
  }

  it('are of no use for a group that CRIU 3.17 cannot restore without them: it is refused', () => {
    for (const [path, without] of Object.entries(since4)) {
      if (!('refused' in without)) continue;
      assert.equal(restoreProblems(without.refused, { major: 3, minor: 17 }).length, 1, path);
      assert.deepEqual(restoreProblems(without.refused, { major: 4, minor: 1 }), [], path);
    }
  });
});
