import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import { ENOSYS } from '../../../src/capture/calls/syscall.ts';
import { taskPtRegs } from '../../../src/linux/arch/index.ts';
import { dentryStruct } from '../../../src/linux/dcache.ts';
import { fdSlots } from '../../../src/linux/fdtable.ts';
import { fileAt } from '../../../src/linux/file.ts';
import { mmStruct, type VmArea } from '../../../src/linux/mm-types.ts';
import { cachedPageOf } from '../../../src/linux/pagemap.ts';
import { findTaskByPid, forEachThread } from '../../../src/linux/pid.ts';
import { forEachVma } from '../../../src/linux/readers/vma.ts';
import { type Task, taskAt } from '../../../src/linux/sched.ts';
import { recordLayout, recordSizeBytes } from '../../../src/model/crash-procedure.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import type { Kernel } from '../../../src/vmcore/kernel.ts';
import { walkUserPages } from '../../../src/vmcore/page-table.ts';
import { openFixture, openPatched, type Release, truthOf } from '../../vmcore/fixtures.ts';

/** mov $15, %rax; syscall */
export const RESTORER = Buffer.from('48c7c00f0000000f05', 'hex');
/** Where in the program's code the procedure and the restorer are said to be. */
export const [ENTRY, RESTORER_AT] = [0x402000, 0x402100];

export interface Patch {
  readonly physical: number;
  readonly bytes: Uint8Array;
}

/** A program of a fixture as if it had registered a crash procedure. It has three threads. */
export class Recorded {
  readonly release: Release;
  readonly pid: number;
  readonly kernel: Kernel;
  /** The first one is the leader. */
  readonly threads: readonly Task[];
  readonly areas: readonly VmArea[];
  readonly patches: Patch[] = [];

  constructor(release: Release) {
    this.release = release;
    this.kernel = openFixture(release);
    this.pid = truthOf(release).program.pid;
    const leader = this.#task(this.pid);
    this.threads = [...forEachThread(this.kernel, leader.address)].map((at) => taskAt(this.kernel, at));
    this.areas = [...forEachVma(this.kernel, this.kernel.bind(mmStruct).at(leader.mm))];
  }

  #task(pid: number): Task {
    return taskAt(this.kernel, findTaskByPid(this.kernel, pid) ?? assert.fail());
  }

  /** Changes a member of a structure. */
  set(type: string, address: bigint, member: string, value: bigint | number): this {
    const { offsetBytes, sizeBytes } = this.kernel.layouts.member(type, member) ?? assert.fail(member);
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return this.write(address + BigInt(offsetBytes), bytes.subarray(0, sizeBytes));
  }

  /** Changes bytes at a kernel address. */
  write(address: bigint, bytes: Uint8Array): this {
    this.patches.push({ physical: this.kernel.memory.translate(address), bytes });
    return this;
  }

  /** Puts a thread into a call that has no result yet. */
  inCall(thread: Task, number: number, firstArgument = 0): this {
    const { address } = taskPtRegs(this.kernel, thread.stack);
    const members = { orig_ax: number, di: firstArgument, ax: BigInt.asUintN(64, ENOSYS) };
    for (const [member, value] of Object.entries(members)) this.set('pt_regs', address, member, value);
    return this;
  }

  area(start: number): VmArea {
    return this.areas.find((area) => area.vm_start <= start && start < area.vm_end) ?? assert.fail();
  }

  /** The file at a descriptor of a process. */
  file(pid: number, name: (file: NonNullable<ReturnType<typeof fileAt>>) => boolean) {
    const slots = fdSlots(this.kernel, this.#task(pid).files);
    const files = slots.flatMap(({ fd, file }) => ({ fd, file: fileAt(this.kernel, file) }));
    const { fd, file } = files.find((one) => one.file !== undefined && name(one.file)) ?? assert.fail();
    return { fd, file: file ?? assert.fail() };
  }

  /** Puts the program into the session of another process. */
  joinSession(pid: number): this {
    const PIDTYPE_SID = 3;
    const { offsetBytes } =
      this.kernel.layouts.member('signal_struct', `pids[${PIDTYPE_SID}]`) ?? assert.fail();
    const session = this.kernel.memory.u64(this.#task(pid).signal + BigInt(offsetBytes));
    return this.set('signal_struct', this.threads[0]?.signal ?? 0n, `pids[${PIDTYPE_SID}]`, session);
  }

  /** The program's data right behind its file, of which the first page is there. */
  get bss(): VmArea {
    const i = this.areas.findIndex(
      ({ vm_file, vm_flags }, at) =>
        vm_file === 0n && (vm_flags.low & 2) !== 0 && this.areas[at - 1]?.vm_file !== 0n,
    );
    return this.areas[i] ?? assert.fail();
  }

  /** Puts the record into that, which becomes a mapping of a memory file by the name of one. */
  register(): this {
    const { bss } = this;
    assert.ok(bss.vm_end - bss.vm_start >= recordSizeBytes);
    const isMemfd = ({ f_dentry }: { readonly f_dentry: bigint }): boolean =>
      this.#nameOf(f_dentry) === 'memfd:kept';
    const { file } = this.file(truthOf(this.release).kinds.pid, isMemfd);
    const dentry = this.kernel.bind(dentryStruct).at(file.f_dentry);
    const name = Buffer.from('memfd:otherworld');
    this.write(dentry.d_nameAddress, name).set('dentry', file.f_dentry, 'd_name.len', name.length);
    this.set('vm_area_struct', bss.address, 'vm_file', file.address);
    this.set('vm_area_struct', bss.address, 'vm_ops', file.f_op);
    const [run] = walkUserPages(
      this.kernel,
      this.kernel.bind(mmStruct).at(this.threads[0]?.mm ?? 0n).pgd,
      bss.vm_start,
      bss.vm_start + PAGE_SIZE,
    );
    assert.ok(run?.kind === 'present');
    this.patches.push({ physical: run.pfn * PAGE_SIZE, bytes: this.record() });
    return this.code(RESTORER);
  }

  #nameOf(dentry: bigint): string {
    const { d_nameAddress, d_nameLength } = this.kernel.bind(dentryStruct).at(dentry);
    return this.kernel.memory.read(d_nameAddress, d_nameLength).toString('latin1');
  }

  /** The program's code, that at the restorer's address if no other is given. */
  code(bytes: Uint8Array, at = RESTORER_AT): this {
    const text = this.area(at);
    const index = text.vm_pgoff + Math.floor((at - text.vm_start) / PAGE_SIZE);
    const page = cachedPageOf(this.kernel, text.vm_file, index);
    assert.ok(page.kind === 'page');
    this.patches.push({ physical: page.physical + (at % PAGE_SIZE), bytes });
    return this;
  }

  record(): Buffer {
    const bytes = Buffer.alloc(512);
    bytes.write('OTHRWRLD', 'latin1');
    const numbers = { version: 1, size: recordSizeBytes, delivery: 1, pid: this.pid } as const;
    for (const [name, value] of Object.entries(numbers))
      bytes.writeUInt32LE(value, recordLayout[name as keyof typeof numbers]);
    const stack = truthOf(this.release).program.huge;
    const addresses = {
      entry: ENTRY,
      stack_base: stack,
      stack_size: 0x10000,
      restorer: RESTORER_AT,
    } as const;
    for (const [name, value] of Object.entries(addresses))
      bytes.writeBigUInt64LE(BigInt(value), recordLayout[name as keyof typeof addresses]);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, recordLayout.crc)), recordLayout.crc);
    return bytes;
  }

  open(): Kernel {
    return openPatched(this.release, this.patches);
  }
}
