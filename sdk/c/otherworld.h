/* SPDX-License-Identifier: Apache-2.0
 *
 * otherworld.h: crash procedures for programs that Otherworld brings back after the death of their kernel.
 *
 *     static int rescued(void *argument) {
 *         save_everything(argument);
 *         return OTHERWORLD_CONTINUE;
 *     }
 *     int main(void) {
 *         otherworld_register(rescued, &my_state);
 *         ...
 *
 * One header, C99 and C++, no library, nothing from the C library. Registering makes a few system calls; after
 * that nothing runs and nothing is called until the kernel has died and the process is back.
 * x86-64 only: elsewhere every function is there, and registering returns OTHERWORLD_UNSUPPORTED.
 *
 * The layout below is an interface between the program and the crash world. It is described in
 * docs/crash-procedures.md; a change of it needs a new OTHERWORLD_VERSION.
 */
#ifndef OTHERWORLD_H
#define OTHERWORLD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OTHERWORLD_MAGIC UINT64_C(0x444c52575248544f) /* "OTHRWRLD", little endian */
#define OTHERWORLD_VERSION 1u

/* Bytes of the record's mapping, and of its part that the checksum covers. */
#define OTHERWORLD_SIZE 16384u
#define OTHERWORLD_HEADER_SIZE 160u

/* Ways of delivery. */
#define OTHERWORLD_BY_CALL 1u
#define OTHERWORLD_BY_SIGNAL 2u

/* What a procedure returns: go on exactly where the kernel's death interrupted the first thread, if it may
 * (otherworld_may_continue). Any other value ends the process with that exit status. */
#define OTHERWORLD_CONTINUE 0

/* otherworld_register on a machine that has no crash procedures (-ENOSYS). */
#define OTHERWORLD_UNSUPPORTED (-38)

/* The stack that a procedure gets unless it brings its own, and the smallest that the crash world accepts. */
#define OTHERWORLD_STACK_SIZE 262144u
#define OTHERWORLD_STACK_MINIMUM 32768u

/* Kinds of items. */
#define OTHERWORLD_LOST 1u
#define OTHERWORLD_IN_DOUBT 2u

#define OTHERWORLD_ITEMS 124u

/* Bits of an incident's restrictions.
 * The process came back for its procedure alone: what was lost no program expects to lose. It may execute another
 * program or end. What returning OTHERWORLD_CONTINUE leads to ends it, with OTHERWORLD_NOT_CONTINUED as exit status; it is killed when the
 * time of its procedure is over. */
#define OTHERWORLD_MAY_NOT_CONTINUE 1u
#define OTHERWORLD_NOT_CONTINUED 75

/* States of an incident, as the crash world sees them from outside. */
#define OTHERWORLD_NOTHING_HAPPENED 0u
#define OTHERWORLD_DELIVERED 1u
#define OTHERWORLD_CONTINUED 2u
#define OTHERWORLD_GAVE_UP 3u
#define OTHERWORLD_ABANDONED 4u /* overran its time or crashed: the process goes on without it */

/* Something that did not come back, or of which nobody knows whether it took effect. */
struct otherworld_item {
  uint32_t kind; /* OTHERWORLD_LOST, OTHERWORLD_IN_DOUBT */
  int32_t fd;    /* the file descriptor concerned, -1 if none */
  int32_t tid;   /* the thread concerned, 0 if none */
  uint32_t reserved;
  char what[112]; /* a sentence, ended by a zero byte */
};

/* What the crash world writes before the process runs on. */
struct otherworld_incident {
  uint32_t state;
  uint32_t resurrections;         /* incidents that this process has outlived */
  int64_t panic_time_nanoseconds; /* CLOCK_REALTIME of the panic */
  uint64_t frame;                 /* the interrupted context (struct rt_sigframe), 0 with delivery by signal */
  uint32_t item_count;
  uint32_t items_omitted; /* items that found no room */
  int32_t exit_status;    /* with OTHERWORLD_GAVE_UP */
  uint32_t reserved;
  char id[64];                  /* names the incident's directory and report */
  char interrupted_syscall[32]; /* what the first thread was in; empty: it was running in user mode */
  uint32_t restrictions;        /* OTHERWORLD_MAY_NOT_CONTINUE */
  char reserved_text[116];
  struct otherworld_item items[OTHERWORLD_ITEMS];
};

/* The whole mapping. */
struct otherworld_record {
  uint64_t magic;
  uint32_t version;
  uint32_t size;
  uint32_t delivery;
  uint32_t flags;
  uint32_t signal;
  uint32_t time_limit_milliseconds; /* 0: as configured on the machine */
  uint64_t entry;                   /* entry(argument) is called on the procedure's stack ... */
  uint64_t argument;
  uint64_t stack_base;
  uint64_t stack_size;
  uint64_t restorer; /* ... and returns to here, which calls rt_sigreturn(2) */
  uint32_t pid;      /* who registered, as it knows itself: a child that fork(2) made has the record, but not the procedure */
  uint32_t reserved;
  uint64_t own[8]; /* the program's; the crash world does not look at it */
  uint32_t reserved_end[3];
  uint32_t crc; /* CRC-32 (IEEE 802.3) of the bytes before it */
  uint8_t reserved_gap[256 - OTHERWORLD_HEADER_SIZE];
  struct otherworld_incident incident;
};

/* A crash procedure. It is called once, in the first thread, on a stack of its own, when the process is back.
 * It is in the position of a signal handler: the first thread was interrupted anywhere, other threads run. */
typedef int (*otherworld_procedure)(void *argument);

/* For otherworld_register_with; zero means the default everywhere. */
struct otherworld_options {
  otherworld_procedure procedure;   /* delivery by call */
  void *argument;                   /* handed to the procedure */
  int signal;                       /* delivery by signal, if procedure is null */
  uint32_t time_limit_milliseconds; /* the crash world gives up on the procedure after that time */
  void *stack;                      /* a stack of the program's own: page-aligned, used by nobody else */
  size_t stack_size;                /* a multiple of the page size, at least OTHERWORLD_STACK_MINIMUM */
};

/* The mapping of this process, null while nothing is registered. Not for direct use. */
__attribute__((weak)) struct otherworld_record *otherworld_record_;

#if defined(__x86_64__) && defined(__linux__) && !defined(__ILP32__)

static inline long otherworld_syscall_(long number, long a, long b, long c, long d, long e) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = 0;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

/* Where a procedure returns to: rt_sigreturn(2), written as debuggers and unwinders know it. */
__attribute__((weak, naked)) void otherworld_restorer_(void) {
  __asm__ volatile("movq $15, %rax\n\tsyscall");
}

/* The entry that the crash world starts: the procedure's answer becomes what the process does next. */
__attribute__((weak)) void otherworld_enter_(struct otherworld_record *record) {
  otherworld_procedure procedure = (otherworld_procedure)(uintptr_t)record->own[0];
  int status = procedure((void *)(uintptr_t)record->own[1]);
  if (status == OTHERWORLD_CONTINUE) {
    record->incident.state = OTHERWORLD_CONTINUED;
    return;
  }
  record->incident.exit_status = status;
  record->incident.state = OTHERWORLD_GAVE_UP;
  otherworld_syscall_(231 /* exit_group */, status, 0, 0, 0, 0);
}

static inline uint32_t otherworld_crc_(const void *data, size_t length) {
  const uint8_t *bytes = (const uint8_t *)data;
  uint32_t crc = 0xffffffffu;
  size_t i;
  int bit;
  for (i = 0; i < length; i++) {
    crc ^= bytes[i];
    for (bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

/* mmap(2) of `size` bytes, readable and writable, private; of the memory file `fd`, or of nothing if it is -1. */
static inline long otherworld_map_(size_t size, long fd) {
  const long private_memory = 0x02, anonymous = 0x20;
  return otherworld_syscall_(9, 0, (long)size, 3, fd < 0 ? private_memory | anonymous : private_memory, fd);
}

static inline void otherworld_unmap_(uint64_t address, size_t size) {
  if (address != 0) otherworld_syscall_(11, (long)address, (long)size, 0, 0, 0);
}

/* Takes the record back: the process comes back without a procedure. */
static inline void otherworld_unregister(void) {
  struct otherworld_record *record = otherworld_record_;
  if (record == NULL) return;
  otherworld_record_ = NULL;
  otherworld_unmap_(record->own[2], (size_t)record->own[3]);
  otherworld_unmap_((uint64_t)(uintptr_t)record, OTHERWORLD_SIZE);
}

/* The procedure's stack: the program's, or a new one above a page that nobody may touch. */
static inline long otherworld_prepare_stack_(struct otherworld_record *record, const struct otherworld_options *options) {
  const size_t guard = 4096;
  long mapped;
  if (options->stack != NULL) {
    record->stack_base = (uint64_t)(uintptr_t)options->stack;
    record->stack_size = options->stack_size;
    return 0;
  }
  mapped = otherworld_map_(guard + OTHERWORLD_STACK_SIZE, -1);
  if (mapped < 0 && mapped > -4096) return mapped;
  otherworld_syscall_(10 /* mprotect */, mapped, (long)guard, 0, 0, 0);
  record->own[2] = (uint64_t)mapped;
  record->own[3] = guard + OTHERWORLD_STACK_SIZE;
  record->stack_base = (uint64_t)mapped + guard;
  record->stack_size = OTHERWORLD_STACK_SIZE;
  return 0;
}

/* Maps a memory file named `otherworld`, by which the crash world finds the record. */
static inline long otherworld_map_record_(void) {
  static const char name[] = "otherworld";
  long mapped;
  long fd = otherworld_syscall_(319 /* memfd_create */, (long)(uintptr_t)name, 1 /* close on exec */, 0, 0, 0);
  if (fd < 0) return fd;
  mapped = otherworld_syscall_(77 /* ftruncate */, fd, OTHERWORLD_SIZE, 0, 0, 0);
  if (mapped == 0) mapped = otherworld_map_(OTHERWORLD_SIZE, fd);
  otherworld_syscall_(3 /* close */, fd, 0, 0, 0, 0);
  return mapped;
}

/* Registers a crash procedure or a signal, in place of what was registered before. Not for two threads at once.
 * Returns 0, or a negative error number. */
static inline int otherworld_register_with(const struct otherworld_options *options) {
  struct otherworld_record *record;
  long result;
  otherworld_unregister();
  result = otherworld_map_record_();
  if (result < 0 && result > -4096) return (int)result;
  record = (struct otherworld_record *)(uintptr_t)result;
  if (options->procedure != NULL) {
    result = otherworld_prepare_stack_(record, options);
    if (result < 0) {
      otherworld_unmap_((uint64_t)(uintptr_t)record, OTHERWORLD_SIZE);
      return (int)result;
    }
    record->delivery = OTHERWORLD_BY_CALL;
    record->own[0] = (uint64_t)(uintptr_t)options->procedure;
    record->own[1] = (uint64_t)(uintptr_t)options->argument;
    record->entry = (uint64_t)(uintptr_t)otherworld_enter_;
    record->argument = (uint64_t)(uintptr_t)record;
    record->restorer = (uint64_t)(uintptr_t)otherworld_restorer_;
  } else {
    record->delivery = OTHERWORLD_BY_SIGNAL;
    record->signal = (uint32_t)options->signal;
  }
  record->version = OTHERWORLD_VERSION;
  record->size = OTHERWORLD_SIZE;
  record->time_limit_milliseconds = options->time_limit_milliseconds;
  record->pid = (uint32_t)otherworld_syscall_(39 /* getpid */, 0, 0, 0, 0, 0);
  record->magic = OTHERWORLD_MAGIC;
  record->crc = otherworld_crc_(record, offsetof(struct otherworld_record, crc));
  otherworld_record_ = record;
  return 0;
}

/* To be called when the procedure is done, from anywhere in it: the interrupted context goes on, as if the
 * procedure had returned OTHERWORLD_CONTINUE. With delivery by signal it tells the crash world that the handler
 * has done its work, and returns. */
static inline void otherworld_continue(void) {
  struct otherworld_record *record = otherworld_record_;
  uint64_t frame;
  if (record == NULL || record->incident.state != OTHERWORLD_DELIVERED) return;
  frame = record->incident.frame;
  record->incident.state = OTHERWORLD_CONTINUED;
  if (frame == 0) return;
  __asm__ volatile("movq %0, %%rsp\n\tmovq $15, %%rax\n\tsyscall" : : "r"(frame + 8) : "memory");
  __builtin_unreachable();
}

#else

static inline void otherworld_unregister(void) {}

static inline int otherworld_register_with(const struct otherworld_options *options) {
  (void)options;
  return OTHERWORLD_UNSUPPORTED;
}

static inline void otherworld_continue(void) {}

#endif

/* Registers `procedure`, to be called with `argument`. Returns 0, or a negative error number. */
static inline int otherworld_register(otherworld_procedure procedure, void *argument) {
  struct otherworld_options options = {0, 0, 0, 0, 0, 0};
  options.procedure = procedure;
  options.argument = argument;
  return otherworld_register_with(&options);
}

/* Asks for `signal` with siginfo (si_code SI_QUEUE, si_value OTHERWORLD_VERSION) instead of a call. The program
 * installs a handler for it. Returns 0, or a negative error number. */
static inline int otherworld_register_signal(int signal) {
  struct otherworld_options options = {0, 0, 0, 0, 0, 0};
  options.signal = signal;
  return otherworld_register_with(&options);
}

/* What the crash world has told this process, or null if it has never outlived a kernel since it registered. */
static inline const struct otherworld_incident *otherworld_last_incident(void) {
  const struct otherworld_record *record = otherworld_record_;
  if (record == NULL || record->incident.state == OTHERWORLD_NOTHING_HAPPENED) return NULL;
  return &record->incident;
}

/* Whether the procedure may continue. If not, the other threads are gone, whoever uses a lost descriptor gets EBADF, and
 * whoever touches lost memory a SIGSEGV. Nothing keeps the procedure from the rest of the program: it must not leave by
 * siglongjmp or call what goes on with the program's work. When its time is over, or it ends, all that it has forked is
 * killed with it. */
static inline int otherworld_may_continue(void) {
  const struct otherworld_incident *incident = otherworld_last_incident();
  return incident == NULL || (incident->restrictions & OTHERWORLD_MAY_NOT_CONTINUE) == 0;
}

/* The next item of `kind` after `previous` (null: the first), or null if there is none:
 * for (item = otherworld_next(OTHERWORLD_LOST, NULL); item != NULL; item = otherworld_next(OTHERWORLD_LOST, item)) */
static inline const struct otherworld_item *otherworld_next(uint32_t kind, const struct otherworld_item *previous) {
  const struct otherworld_incident *incident = otherworld_last_incident();
  const struct otherworld_item *item, *end;
  if (incident == NULL) return NULL;
  end = incident->items + (incident->item_count < OTHERWORLD_ITEMS ? incident->item_count : OTHERWORLD_ITEMS);
  for (item = previous == NULL ? incident->items : previous + 1; item < end; item++) {
    if (item->kind == kind) return item;
  }
  return NULL;
}

/* Whether file descriptor `fd` did not come back: 1 if so, 0 if it did, -1 if the record had no room to tell
 * (items_omitted). What is lost comes before what is in doubt: if there is room for that, all that is lost is there. */
static inline int otherworld_is_lost(int fd) {
  const struct otherworld_incident *incident = otherworld_last_incident();
  const struct otherworld_item *item = NULL;
  while ((item = otherworld_next(OTHERWORLD_LOST, item)) != NULL) {
    if (item->fd == fd) return 1;
  }
  if (incident == NULL || incident->items_omitted == 0) return 0;
  return otherworld_next(OTHERWORLD_IN_DOUBT, NULL) == NULL ? -1 : 0;
}

#ifdef __cplusplus
}
#endif

#endif
