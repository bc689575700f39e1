# Stage zero: what runs on the dying CPU between its kernel and the crash kernel. It saves this CPU's vector registers,
# has every other CPU save its own, and goes on into the crash kernel as if it had never been.
#
# It lies in an area of the memory that is reserved for the crash kernel (src/stage-zero/area.ts lays it out and says
# where everything is) and is entered as the kernel enters any image of kexec_load(2): 64-bit mode, interrupts off,
# RAM mapped one to one, no usable descriptor tables and no usable stack (arch/x86/kernel/relocate_kernel_64.S).
#
# References: SDM is the Intel 64 and IA-32 Architectures Software Developer's Manual; "boot protocol" is
# Documentation/arch/x86/boot.rst.

# Offsets in the area, and of what lies there. `npm run stage-zero` puts them into
# src/stage-zero/code.ts, with the code.
        .equ CONSTANTS,        0x1000  # Page of constants, behind the code.
        .equ   MAGIC,            0x00  # u64: that this is such an area.
        .equ   SEALED_BYTES,     0x10  # u64: so many bytes of the area, from its beginning, never change.
        .equ   SEAL,             0x18  # u64: address of their checksum, SEAL_OFFSET behind them.
        .equ   CR3_LEVEL4,       0x20  # u64: our page tables, for four levels ...
        .equ   CR3_LEVEL5,       0x28  # u64: ... and for five.
        .equ   TABLE,            0x30  # u64: address of the table of CPUs.
        .equ   CPUS,             0x38  # u64: entries in it.
        .equ   DIGESTS,          0x40  # u64: address of the table of checksums.
        .equ   DIGEST_COUNT,     0x48  # u64: entries in it.
        .equ   LOW,              0x50  # u64: address below 1 MiB of the pages where started CPUs begin.
        .equ   LOW_BYTES,        0x58  # u64: size of these pages.
        .equ   LOW_CONTENT,      0x60  # u64: address of what is put there.
        .equ   LOW_SAVED,        0x68  # u64: address where their content is kept meanwhile.
        .equ   STATE,            0x70  # u64: address of the page of what changes.
        .equ   ANSWER_TICKS,     0x78  # u64: ticks of the time stamp counter that CPUs have to answer in.
        .equ   REPEAT_TICKS,     0x80  # u64: ticks after which those that have not are called again, and how long these are stopped.
        .equ   STACK,            0x88  # u64: end of the dying CPU's stack.
        .equ   PARKED_STACK,     0x90  # u64: end of the stack that parked CPUs share; nobody reads what is there.
        .equ   GDT_POINTER,      0xa0  # 10 bytes, as LGDT takes it.
        .equ   IDT_POINTER,      0xb0  # 10 bytes, as LIDT takes it: exceptions of the dying CPU.
        .equ   PARKED_IDT,       0xc0  # 10 bytes: exceptions of parked CPUs.
        .equ   SLOT_ROOM,        0xd0  # u64: room for the area of XSAVE in each slot.
        .equ   BOOT_ID,          0xe0  # 16 bytes: the boot that this was loaded in.
        .equ   AREA_BYTES,       0xf0  # u64: size of the area.
        .equ   NOTE,            0x100  # An ELF note by which the crash kernel's /proc/vmcore tells of the area.
        .equ   NOTE_BYTES,       0x40  # With zeros at its end.
        .equ   TEXT,            0x140  # u64: address of the HLT of the kernel's text that the boot processor waits in, or 0.
        .equ   TEXT_BYTES,      0x148  # u64: so many bytes of text are others for a moment.
        .equ   TEXT_CONTENT,    0x150  # u64: address of these.
        .equ   TEXT_SAVED,      0x158  # u64: address where the text's own are kept meanwhile.

        .equ CPU_ENTRY_BYTES,      16  # An entry of the table of CPUs:
        .equ   CPU_APIC_ID,         0  # u32
        .equ   CPU_START,           4  # u32: how it is called; 0: not at all.
        .equ   BY_INIT,             1  # Not the boot processor: its INIT is a reset of the machine.
        .equ   BY_SMI,              2
        .equ   CPU_SLOT,            8  # u64: address of its slot.

        .equ SLOT_STATUS,        0x00  # u32: what follows is whole if it is SAVED.
        .equ SLOT_APIC_ID,       0x04  # u32
        .equ SLOT_SUM,           0x08  # u64: checksum of all that follows.
        .equ SLOT_SUMMED,        0x10  # Where that begins:
        .equ SLOT_XCR0,          0x10  # u64
        .equ SLOT_KERNEL_GS,     0x18  # u64: IA32_KERNEL_GS_BASE, in the kernel the user's GS base.
        .equ SLOT_TICKS,         0x20  # u64: time stamp counter.
        .equ SLOT_BYTES,         0x28  # u64: size of the area of XSAVE.
        .equ SLOT_XSAVE,         0x40  # Area of XSAVE, standard format.
        .equ SAVED,                 2

        .equ DIGEST_BYTES,         24  # An entry of the table of checksums: address, bytes, checksum.

        .equ STATE_PHASE,        0x00  # u32: how far it came.
        .equ STATE_VECTOR,       0x04  # u32: number of the exception, if there was one.
        .equ STATE_IP,           0x08  # u64: where.
        .equ STATE_BEGIN,        0x10  # u64: time stamp counter at the beginning ...
        .equ STATE_END,          0x18  # u64: ... and at the end.
        .equ STATE_CR3,          0x20  # u64: what the kernel had.
        .equ STATE_CR4,          0x28  # u64
        .equ STATE_LOW_TAKEN,    0x30  # u32: 1 while the pages below 1 MiB are ours.
        .equ STATE_FAULTS,       0x34  # u32
        .equ STATE_MISSING,      0x38  # u32: CPUs that did not answer.
        .equ STATE_APIC_ID,      0x3c  # u32: the dying CPU's own.
        .equ STATE_TEXT_TAKEN,   0x40  # u32: 1 while the kernel's text is not its own.
        .equ SEAL_OFFSET,       0x800  # In the page of what changes, which is the first behind what does not.
        .equ PHASE_ENTERED,         1
        .equ PHASE_STARTING,        2
        .equ PHASE_DONE,            3
        .equ PHASE_FAULT,           4

        .equ DETOUR,           0x1800  # What is put into the kernel's text, with its numbers.
        .equ FALLBACK,         0x2000  # Record of where the crash kernel begins, in a page of its own.
        .equ FALLBACK_ENTRY,     0x00  # u64: 64-bit entry of the crash kernel.
        .equ FALLBACK_PARAMS,    0x08  # u64: its boot_params.
        .equ FALLBACK_SUM,       0x10  # u64: checksum of the two.

        # Checksum of words of 64 bits. The lower and the upper halves have one of 32 bits each: for each word, (sum xor
        # word) rotated, times an odd number. All of that can be undone, so one word that is wrong is always found.
        .equ SUM_LOW_START,      0x6f746865
        .equ SUM_HIGH_START,     0x72776c64
        .equ SUM_ROTATE,         13
        .equ SUM_LOW_FACTOR,     0x2c1b3c6d
        .equ SUM_HIGH_FACTOR,    0x297a2d39

        .equ CODE_SELECTOR,      0x10  # __BOOT_CS and __BOOT_DS of the boot protocol.
        .equ DATA_SELECTOR,      0x18

        .equ IA32_APIC_BASE,     0x1b
        .equ APIC_X2,            10    # Bits of it (SDM 3, 10.4.4 and 10.12.1).
        .equ APIC_ON,            11
        .equ X2APIC_ICR,         0x830
        .equ IA32_EFER,          0xc0000080
        .equ IA32_KERNEL_GS,     0xc0000102
        .equ XAPIC_EVERYBODY,    0xff
        .equ ICR_LOW,            0x300 # Registers of the local APIC's page (SDM 3, 10.6.1).
        .equ ICR_HIGH,           0x310
        .equ ICR_PENDING,        12
        .equ INIT,               0x4500
        .equ STARTUP,            0x4600
        .equ SMI,                0x4200
        # CR4: OSFXSR, OSXMMEXCPT and OSXSAVE, without which there is no XSAVE, and PAE, without which no long mode.
        # LASS (bit 27), which no kernel has yet that was tried, would forbid the detour its jump to a low address.
        .equ CR4_SAVE,           0x40600
        .equ CR4_PAE,            0x20
        .equ CR4_LA57,           12
        .equ CR4_CET,            23
        .equ CR4_FRED,           32

        .text
        .code64
area:
        cli
        cld
        # The registers that tell nothing here: RBX the area, R15 the constants, R14 the state.
        lea     area(%rip), %rbx
        lea     CONSTANTS(%rbx), %r15

        # 1. Are we ourselves? A dying kernel may have written anywhere.
        mov     SEALED_BYTES(%r15), %rcx
        cmp     $0x1000000, %rcx                # A number that is damaged itself must not lead far away.
        ja      plain
        mov     %rbx, %rsi
        lea     2f(%rip), %r13
        jmp     checksum
2:      lea     area(%rip), %rbx
        mov     SEALED_BYTES(%r15), %rcx        # Not by the address, which may be what is damaged.
        cmp     SEAL_OFFSET(%rbx, %rcx), %rax
        jne     plain

        # 2. What the kernel had, to be put back.
        mov     STATE(%r15), %r14
        movl    $PHASE_ENTERED, STATE_PHASE(%r14)
        xor     %eax, %eax                      # No checksum is on what changes.
        mov     %eax, STATE_LOW_TAKEN(%r14)
        mov     %eax, STATE_TEXT_TAKEN(%r14)
        mov     %eax, STATE_FAULTS(%r14)
        mov     %eax, STATE_MISSING(%r14)
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     %rax, STATE_BEGIN(%r14)
        mov     %cr3, %rax
        mov     %rax, STATE_CR3(%r14)
        mov     %cr4, %rax
        mov     %rax, STATE_CR4(%r14)
        or      $CR4_SAVE, %rax
        mov     %rax, %cr4

        # 3. Descriptor tables, page tables and a stack of our own. The tables map the first 4 GiB with the page of the
        #    local APIC, which the kernel's do not, and the reserved memory. The stack comes first: exceptions need it.
        mov     STACK(%r15), %rsp
        lgdt    GDT_POINTER(%r15)
        lidt    IDT_POINTER(%r15)
        mov     CR3_LEVEL4(%r15), %rdx
        bt      $CR4_LA57, %rax
        jnc     1f
        mov     CR3_LEVEL5(%r15), %rdx
1:      mov     %rdx, %cr3
        mov     $DATA_SELECTOR, %eax
        mov     %eax, %ss
        mov     %eax, %ds
        mov     %eax, %es
        push    $CODE_SELECTOR
        lea     1f(%rip), %rax
        push    %rax
        lretq
1:
        # 4. This CPU's registers: nothing has changed them since the panic.
        lea     1f(%rip), %rbp
        jmp     own_slot
1:      mov     %eax, STATE_APIC_ID(%r14)
        lea     1f(%rip), %rbp
        test    %rdi, %rdi
        jnz     save
1:
        # 5. The other CPUs' registers.
        movl    $PHASE_STARTING, STATE_PHASE(%r14)
        call    call_others

        # 6. The crash kernel is only as good as what it was loaded as: what purgatory does for kexec-tools.
finish:
        mov     DIGESTS(%r15), %rbp
        mov     DIGEST_COUNT(%r15), %r12
1:      test    %r12, %r12
        jz      3f
        mov     0(%rbp), %rsi
        mov     8(%rbp), %rcx
        lea     2f(%rip), %r13
        jmp     checksum
2:      cmp     16(%rbp), %rax
        jne     reset
        add     $DIGEST_BYTES, %rbp
        dec     %r12
        jmp     1b
3:
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     %rax, STATE_END(%r14)
        cmpl    $PHASE_FAULT, STATE_PHASE(%r14)
        je      1f
        movl    $PHASE_DONE, STATE_PHASE(%r14)
1:
        # 7. As it was.
        mov     STATE_CR3(%r14), %rax
        mov     %rax, %cr3
        mov     STATE_CR4(%r14), %rax
        mov     %rax, %cr4

        # 8. On into the crash kernel, by a record with a checksum of its own: it leads there even if all the rest is
        #    damaged. Without it there is nowhere to go.
plain:
        lea     area(%rip), %rbx
        lea     FALLBACK(%rbx), %rdx
        mov     %rdx, %rsi
        mov     $FALLBACK_SUM, %ecx
        lea     1f(%rip), %r13
        jmp     checksum
1:      cmp     FALLBACK_SUM(%rdx), %rax
        jne     reset
        mov     FALLBACK_PARAMS(%rdx), %rsi
        mov     FALLBACK_ENTRY(%rdx), %rax
        lidt    no_idt(%rip)
        xor     %ebx, %ebx
        xor     %ecx, %ecx
        xor     %edx, %edx
        xor     %edi, %edi
        xor     %ebp, %ebp
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        xor     %r10d, %r10d
        xor     %r11d, %r11d
        xor     %r12d, %r12d
        xor     %r13d, %r13d
        xor     %r14d, %r14d
        xor     %r15d, %r15d
        jmp     *%rax

        # An exception without a table of handlers resets the machine: better than a crash kernel that is not what was
        # loaded, and better than to hang.
reset:
        lidt    no_idt(%rip)
        ud2

        # Checksum of RCX bytes, a multiple of 8, at RSI, to RAX; goes on at R13. Changes RCX, RSI and R11. No stack.
checksum:
        mov     $SUM_LOW_START, %eax
        mov     $SUM_HIGH_START, %r11d
1:      sub     $8, %rcx
        jb      2f
        xor     0(%rsi), %eax
        rol     $SUM_ROTATE, %eax
        imul    $SUM_LOW_FACTOR, %eax, %eax
        xor     4(%rsi), %r11d
        rol     $SUM_ROTATE, %r11d
        imul    $SUM_HIGH_FACTOR, %r11d, %r11d
        add     $8, %rsi
        jmp     1b
2:      shl     $32, %r11
        or      %r11, %rax
        jmp     *%r13

        # The id of this CPU's local APIC to EAX, and its slot, or 0, to RDI; goes on at RBP. Changes RBX to RDX and
        # RSI. No stack: all started CPUs come here at once.
own_slot:
        xor     %eax, %eax
        cpuid
        cmp     $0xb, %eax
        jb      1f
        # Leaf 0Bh has all 32 bits, where it is there at all (SDM 3, 8.9.1).
        mov     $0xb, %eax
        xor     %ecx, %ecx
        cpuid
        mov     %edx, %eax
        test    %ebx, %ebx
        jnz     2f
1:      mov     $1, %eax
        cpuid
        shr     $24, %ebx
        mov     %ebx, %eax
2:      mov     TABLE(%r15), %rsi
        mov     CPUS(%r15), %rcx
        xor     %edi, %edi
3:      test    %rcx, %rcx
        jz      5f
        cmp     %eax, CPU_APIC_ID(%rsi)
        je      4f
        add     $CPU_ENTRY_BYTES, %rsi
        dec     %rcx
        jmp     3b
4:      mov     CPU_SLOT(%rsi), %rdi
5:      jmp     *%rbp

        # Saves this CPU's registers to its slot, RDI; EAX is its APIC id; goes on at RBP. Changes RAX to RDX, RSI, R11
        # and R13. No stack.
save:
        mov     %eax, SLOT_APIC_ID(%rdi)
        # What XSAVE takes for the components that are on (SDM 1, 13.2: leaf 0Dh).
        mov     $0xd, %eax
        xor     %ecx, %ecx
        cpuid
        mov     %rbx, SLOT_BYTES(%rdi)
        cmp     SLOT_ROOM(%r15), %rbx
        ja      2f
        mov     $-1, %eax
        mov     %eax, %edx
        xsave64 SLOT_XSAVE(%rdi)
        xor     %ecx, %ecx
        xgetbv
        mov     %eax, SLOT_XCR0(%rdi)
        mov     %edx, SLOT_XCR0+4(%rdi)
        mov     $IA32_KERNEL_GS, %ecx
        rdmsr
        mov     %eax, SLOT_KERNEL_GS(%rdi)
        mov     %edx, SLOT_KERNEL_GS+4(%rdi)
        rdtsc
        mov     %eax, SLOT_TICKS(%rdi)
        mov     %edx, SLOT_TICKS+4(%rdi)
        lea     SLOT_SUMMED(%rdi), %rsi
        mov     SLOT_BYTES(%rdi), %rcx
        add     $SLOT_XSAVE - SLOT_SUMMED, %rcx
        lea     1f(%rip), %r13
        jmp     checksum
1:      mov     %rax, SLOT_SUM(%rdi)
        mfence
        movl    $SAVED, SLOT_STATUS(%rdi)
2:      jmp     *%rbp

        # Has every other CPU that can be called save its registers, and waits for them so long as is allowed. Keeps R14
        # and R15.
call_others:
        # R9: the page of the local APIC, or 0 where it is reached through registers of the model (x2APIC).
        mov     $IA32_APIC_BASE, %ecx
        rdmsr
        bt      $APIC_ON, %eax
        jnc     2f
        xor     %r9d, %r9d
        bt      $APIC_X2, %eax
        jc      1f
        mov     %eax, %r9d
        and     $0xfffff000, %r9d
        and     $0xff, %edx
        jnz     2f                              # Nobody moves it there, and our tables end before.
1:      call    by_init
        call    by_smi
2:      ret

        # Those that may be started: INIT to all, then STARTUP to all, whose vector is the number of the page where they
        # begin. The processors of today need no time between the two (init_udelay in arch/x86/kernel/smpboot.c).
by_init:
        cmpq    $0, LOW_BYTES(%r15)
        je      1f
        lea     LOW(%r15), %rbx
        lea     STATE_LOW_TAKEN(%r14), %rdx
        call    borrow
        mov     $BY_INIT, %r12d
        mov     $INIT, %r8d
        call    call_missing
        mov     LOW(%r15), %r8
        shr     $12, %r8
        or      $STARTUP, %r8d
        call    call_missing
        call    wait_for_missing
        mov     %ecx, STATE_MISSING(%r14)
        test    %ecx, %ecx
        jz      2f
        call    stop_missing
2:      call    give_back_low
1:      ret

        # Who has not answered waits from now on for a STARTUP that does not come: it must not run into the pages that
        # are given back. The interrupt takes its time, above all to a virtual CPU that is not running. Changes RAX, RCX,
        # RDX, RSI, RDI, R8, R10 and R12.
stop_missing:
        mov     $BY_INIT, %r12d
        mov     $INIT, %r8d
        call    call_missing
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     %rax, %r10
1:      pause
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        sub     %r10, %rax
        cmp     REPEAT_TICKS(%r15), %rax
        jb      1b
        ret

        # The boot processor, which the dead kernel has halted (native_halt). After a system management interrupt it
        # executes its HLT again, or goes on behind it (SDM 3, 32.10): there are other instructions now, which lead to
        # `halted`. If the interrupt comes too late, or not at all, everything is as it was.
by_smi:
        cmpq    $0, TEXT(%r15)
        je      1f
        lea     TEXT(%r15), %rbx
        lea     STATE_TEXT_TAKEN(%r14), %rdx
        call    borrow
        mov     $BY_SMI, %r12d
        mov     $SMI, %r8d
        call    call_missing
        call    wait_for_missing
        add     %ecx, STATE_MISSING(%r14)
        call    give_back_text
1:      ret

        # Waits until nobody is missing, or the time is up; calls those that are missing once more, by R8. To ECX: how
        # many are missing in the end. Changes RAX, RDX, RSI, RDI, R10 and RBP.
wait_for_missing:
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     %rax, %r10
        xor     %ebp, %ebp                      # Called again?
1:      pause
        call    count_missing
        test    %ecx, %ecx
        jz      2f
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        sub     %r10, %rax
        cmp     ANSWER_TICKS(%r15), %rax
        ja      2f
        test    %ebp, %ebp
        jnz     1b
        cmp     REPEAT_TICKS(%r15), %rax
        jb      1b
        inc     %ebp
        call    call_missing
        jmp     1b
2:      ret

        # Keeps the content of memory of the dead machine, and puts ours there. RBX: four words, address, bytes, address
        # of ours, address to keep it at. RDX: address of the mark that it is taken. Changes RCX, RSI and RDI.
borrow:
        mov     0(%rbx), %rsi
        mov     24(%rbx), %rdi
        mov     8(%rbx), %rcx
        rep movsb
        movl    $1, (%rdx)
        mov     16(%rbx), %rsi
        mov     0(%rbx), %rdi
        mov     8(%rbx), %rcx
        rep movsb
        mfence
        ret

        # Puts it back, if it was taken. The mark goes last: after an exception in between it is put back once more,
        # which does no harm. Changes RBX to RDX, RSI and RDI.
give_back_low:
        lea     LOW(%r15), %rbx
        lea     STATE_LOW_TAKEN(%r14), %rdx
        jmp     give_back
give_back_text:
        lea     TEXT(%r15), %rbx
        lea     STATE_TEXT_TAKEN(%r14), %rdx
give_back:
        cmpl    $0, (%rdx)
        je      1f
        mov     24(%rbx), %rsi
        mov     0(%rbx), %rdi
        mov     8(%rbx), %rcx
        rep movsb
        mfence
        movl    $0, (%rdx)
1:      ret

        # Sends the interrupt R8 to every CPU that is called in the way R12 and is missing. Changes RAX, RCX, RDX, RSI
        # and RDI.
call_missing:
        mov     TABLE(%r15), %rsi
        mov     CPUS(%r15), %rdi
1:      test    %rdi, %rdi
        jz      6f
        call    is_missing
        jnz     5f
        test    %r9, %r9
        jz      4f
        mov     CPU_APIC_ID(%rsi), %eax
        shl     $24, %eax
        mov     %eax, ICR_HIGH(%r9)
        mov     %r8d, ICR_LOW(%r9)
        # Sent, or at least a while has gone by: the next one must not overtake it.
        mov     $100000, %ecx
2:      mov     ICR_LOW(%r9), %eax
        bt      $ICR_PENDING, %eax
        jnc     5f
        pause
        dec     %ecx
        jnz     2b
        jmp     5f
4:      mov     $X2APIC_ICR, %ecx
        mov     %r8d, %eax
        mov     CPU_APIC_ID(%rsi), %edx
        mfence                                  # WRMSR to these registers waits for nothing (SDM 3, 10.12.3).
        lfence
        wrmsr
5:      add     $CPU_ENTRY_BYTES, %rsi
        dec     %rdi
        jmp     1b
6:      ret

        # Sets ZF if the CPU of the entry RSI is called in the way R12, is not this one, and has not answered. Changes
        # RAX and RDX.
is_missing:
        cmp     %r12d, CPU_START(%rsi)
        jne     1f
        mov     CPU_APIC_ID(%rsi), %eax
        # The page of the local APIC has room for 8 bits of an id, of which the last is everybody (SDM 3, 10.6.2): what
        # is more would be an INIT to another processor, or to the boot processor.
        test    %r9, %r9
        jz      3f
        cmp     $XAPIC_EVERYBODY, %eax
        jae     2f
3:
        cmp     %eax, STATE_APIC_ID(%r14)
        je      2f
        mov     CPU_SLOT(%rsi), %rdx
        cmpl    $SAVED, SLOT_STATUS(%rdx)
        je      2f
        xor     %eax, %eax                      # ZF
1:      ret
2:      or      $1, %eax                        # No ZF
        ret

        # How many are missing, to ECX. Changes RAX, RDX, RSI and RDI.
count_missing:
        xor     %ecx, %ecx
        mov     TABLE(%r15), %rsi
        mov     CPUS(%r15), %rdi
1:      test    %rdi, %rdi
        jz      3f
        call    is_missing
        jnz     2f
        inc     %ecx
2:      add     $CPU_ENTRY_BYTES, %rsi
        dec     %rdi
        jmp     1b
3:      ret

        # An exception or NMI of the dying CPU: whatever it was, the crash kernel has to start. A second one goes there
        # at once. The gates push the number of the vector.
exception:
        lea     area(%rip), %rbx
        lea     CONSTANTS(%rbx), %r15
        mov     STATE(%r15), %r14
        mov     0(%rsp), %rax
        mov     %eax, STATE_VECTOR(%r14)
        mov     8(%rsp), %rax
        mov     %rax, STATE_IP(%r14)
        movl    $PHASE_FAULT, STATE_PHASE(%r14)
        incl    STATE_FAULTS(%r14)
        cmpl    $1, STATE_FAULTS(%r14)
        ja      1f
        mov     STACK(%r15), %rsp
        call    give_back_text
        cmpl    $0, STATE_LOW_TAKEN(%r14)
        je      finish
        call    stop_missing                    # R9 has not changed since.
        call    give_back_low
        jmp     finish
1:      mov     STATE_CR3(%r14), %rax
        mov     %rax, %cr3
        mov     STATE_CR4(%r14), %rax
        mov     %rax, %cr4
        jmp     plain

        # A gate for each of the 32 vectors of exceptions, 8 bytes each: what the CPU pushes is an error code for some
        # of them, and the address of the instruction then is one word further up, which costs no more than that the
        # note of it is wrong.
        .balign 8
gates:
        vector = 0
        .rept 32
        .balign 8
        push    $vector
        jmp     exception
        vector = vector + 1
        .endr

        # 9. What a called CPU does, in long mode, on our tables. It needs no stack; what an NMI pushes, now or later,
        #    nobody reads. The boot processor comes from its own kernel's code, whose CR4 may want ENDBR64 where an
        #    indirect jump leads (SDM 1, 18.3), and have events go to that kernel's code whatever the IDT is (FRED).
        #    Here only the first jump leads to one.
        .balign 16
halted:
        endbr64
        mov     %cr4, %rax
        btr     $CR4_CET, %rax
        btr     $CR4_FRED, %rax
        or      $CR4_SAVE, %rax
        mov     %rax, %cr4
started:
        lea     area(%rip), %rbx
        lea     CONSTANTS(%rbx), %r15
        mov     PARKED_STACK(%r15), %rsp
        lgdt    GDT_POINTER(%r15)
        lidt    PARKED_IDT(%r15)
        mov     $DATA_SELECTOR, %eax
        mov     %eax, %ss
        mov     %eax, %ds
        mov     %eax, %es
        lea     1f(%rip), %rbp
        jmp     own_slot
1:      lea     parked(%rip), %rbp
        test    %rdi, %rdi
        jnz     save
        # Until the crash kernel starts it with an INIT of its own.
parked:
        lea     CONSTANTS+area(%rip), %r15
        mov     PARKED_STACK(%r15), %rsp
1:      cli
        hlt
        jmp     1b

no_idt:
        .word   0
        .quad   0

        # What lies for a moment in the place of the kernel's HLT. The two numbers are put in by src/stage-zero/area.ts.
        # Where HLT was is one instruction of one byte: it is executed, or was executed already.
        .balign 8
detour:
        nop
        mov     $0x1122334455667788, %rax       # CR3: our page tables, which have this page of text as well.
detour_tables = . - 8
        mov     %rax, %cr3
        mov     $0x1122334455667788, %rax       # Address of `halted`.
detour_halted = . - 8
        jmp     *%rax
detour_end:

        # 10. Where a started CPU begins: in real mode, at the beginning of a page below 1 MiB, CS the page's segment
        # (SDM 3, 8.4.4). The pages behind it are page tables that map this one. What is `low_*` is put in by
        # src/stage-zero/area.ts, which knows the page.
        .section .low, "ax"
        .code16
low:
        cli
        cld
        mov     %cs, %ax
        mov     %ax, %ds
        lgdtl   low_gdt_pointer - low
        mov     $CR4_SAVE + CR4_PAE, %eax
        mov     %eax, %cr4
        mov     low_cr3 - low, %eax
        mov     %eax, %cr3
        mov     $IA32_EFER, %ecx
        rdmsr
        or      $0x100, %eax                    # LME: long mode as soon as there is paging.
        wrmsr
        # PG, NE, ET, MP and PE; the caches on, which INIT has switched off (CD, NW).
        mov     $0x80000033, %eax
        mov     %eax, %cr0
        ljmpl   *(low_jump - low)
        .code64
low_long:
        mov     low_started(%rip), %rax
        mov     low_tables(%rip), %rdx
        mov     %rdx, %cr3
        jmp     *%rax

        .balign 8
low_jump:                                       # u32 address of low_long, u16 selector
        .long   0
        .word   CODE_SELECTOR
        .balign 8
low_cr3:                                        # u32: page tables in the pages behind this one
        .long   0
        .balign 8
low_tables:                                     # u64: our page tables for four levels
        .quad   0
low_started:                                    # u64: address of started
        .quad   0
low_gdt_pointer:                                # u16 limit, u32 address of low_gdt
        .word   31
        .long   0
        .balign 8
low_gdt:                                        # Null, null, 64-bit code, data (SDM 3, 3.4.5)
        .quad   0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
