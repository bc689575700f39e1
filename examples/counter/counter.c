/* SPDX-License-Identifier: Apache-2.0
 *
 * counter: a program that proves, bit by bit, that it came back whole.
 *
 * Some threads share out a large block of memory. Each word of it holds a value that follows from its index and from
 * the pass that wrote it last. A thread walks through its part, checks every word against what it has to be, and
 * writes the value of the next pass: so all of memory is both read and written all the time, and a single bit that
 * comes back wrong, old or in another place is counted. Between blocks a thread naps in a system call with its vector
 * registers full of a pattern, and looks at them afterwards. The clocks are watched, too.
 *
 *     counter [--size MIB] [--threads N] [--nap MICROSECONDS] [--status FILE]
 *             [--procedure continue|exit|overrun|fault]
 *
 * Writes a line of JSON to the status file (default: counter.status) every second; to standard output on SIGUSR1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "otherworld.h"

enum { MOST_THREADS = 64, BLOCK_WORDS = 8192, VECTOR_BYTES = 512 };

struct worker {
  pthread_t thread;
  uint64_t *words;
  uint64_t first; /* index of its first word in the whole */
  uint64_t count;
  _Atomic uint64_t words_owned; /* the same, for the status */
  _Atomic uint64_t checked; /* words since the start */
  _Atomic uint64_t passes;
  _Atomic uint64_t naps; /* each with a check of the vector registers */
  _Atomic uint64_t wrong_words;
  _Atomic uint64_t wrong_vectors;
  _Atomic uint64_t wrong_locals;
  _Atomic uint64_t clock_backwards;
  _Atomic uint64_t largest_monotonic_gap; /* nanoseconds between two looks at the clock */
  _Atomic uint64_t largest_realtime_gap;
  _Atomic uint64_t checked_since_gap; /* words since the largest gap in real time: since an outage */
  int64_t last_monotonic;
  int64_t last_realtime;
};

static struct worker workers[MOST_THREADS];
static unsigned worker_count = 4;
static uint64_t size_mib = 256;
static long nap_microseconds = 15000;
static const char *status_path = "counter.status";
static const char *procedure_mode;
static _Atomic unsigned procedure_runs;
static volatile sig_atomic_t status_wanted;
static __thread uint64_t local_identity;
static int has_avx;

/* The value that a word has after a pass. Both products are odd multiples: no two places of a pass, and no two passes of
 * a place, have the same value; the shift spreads the difference over the whole word. */
static inline uint64_t value_of(uint64_t index, uint64_t pass) {
  uint64_t z = index * UINT64_C(0x9e3779b97f4a7c15) + pass * UINT64_C(0xd1342543de82ef95);
  return z ^ (z >> 31);
}

static int64_t read_clock(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int note_largest(_Atomic uint64_t *largest, int64_t gap) {
  if (gap <= 0 || (uint64_t)gap <= *largest) return 0;
  *largest = (uint64_t)gap;
  return 1;
}

static void watch_clocks(struct worker *worker) {
  int64_t monotonic = read_clock(CLOCK_MONOTONIC), realtime = read_clock(CLOCK_REALTIME);
  if (monotonic < worker->last_monotonic) worker->clock_backwards++;
  note_largest(&worker->largest_monotonic_gap, monotonic - worker->last_monotonic);
  if (note_largest(&worker->largest_realtime_gap, realtime - worker->last_realtime)) worker->checked_since_gap = 0;
  worker->last_monotonic = monotonic;
  worker->last_realtime = realtime;
}

/* nanosleep(2) with all sixteen vector registers live across it: what goes in has to come out. */
#define EACH_REGISTER(op, mov, reg) \
  op(mov, reg, 0) op(mov, reg, 1) op(mov, reg, 2) op(mov, reg, 3) op(mov, reg, 4) op(mov, reg, 5) \
  op(mov, reg, 6) op(mov, reg, 7) op(mov, reg, 8) op(mov, reg, 9) op(mov, reg, 10) op(mov, reg, 11) \
  op(mov, reg, 12) op(mov, reg, 13) op(mov, reg, 14) op(mov, reg, 15)
#define LOAD(mov, reg, n) mov " " #n "*32(%[in]), %%" reg #n "\n\t"
#define STORE(mov, reg, n) mov " %%" reg #n ", " #n "*32(%[out])\n\t"
#define CLOBBERS \
  "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static void nap_with_avx(const uint8_t *in, uint8_t *out, const struct timespec *time) {
  long number = SYS_nanosleep;
  __asm__ volatile(EACH_REGISTER(LOAD, "vmovdqu", "ymm") "syscall\n\t" EACH_REGISTER(STORE, "vmovdqu", "ymm") "vzeroupper"
                   : "+a"(number)
                   : "D"(time), "S"(0), [in] "r"(in), [out] "r"(out)
                   : CLOBBERS);
}

static void nap_with_sse(const uint8_t *in, uint8_t *out, const struct timespec *time) {
  long number = SYS_nanosleep;
  __asm__ volatile(EACH_REGISTER(LOAD, "movdqu", "xmm") "syscall\n\t" EACH_REGISTER(STORE, "movdqu", "xmm")
                   : "+a"(number)
                   : "D"(time), "S"(0), [in] "r"(in), [out] "r"(out)
                   : CLOBBERS);
}

static void nap(struct worker *worker) {
  const struct timespec time = {nap_microseconds / 1000000, nap_microseconds % 1000000 * 1000};
  uint8_t in[VECTOR_BYTES], out[VECTOR_BYTES];
  for (size_t i = 0; i < VECTOR_BYTES / 8; i++) {
    uint64_t word = value_of(worker->first + i, worker->naps);
    memcpy(in + 8 * i, &word, 8);
  }
  memcpy(out, in, sizeof out); /* the halves that SSE does not touch */
  if (has_avx) nap_with_avx(in, out, &time);
  else nap_with_sse(in, out, &time);
  if (memcmp(in, out, sizeof in) != 0) worker->wrong_vectors++;
  worker->naps++;
}

static void check_block(struct worker *worker, uint64_t from, uint64_t to, uint64_t pass) {
  for (uint64_t i = from; i < to; i++) {
    if (worker->words[i] != value_of(worker->first + i, pass)) worker->wrong_words++;
    worker->words[i] = value_of(worker->first + i, pass + 1);
  }
  worker->checked += to - from;
  worker->checked_since_gap += to - from;
}

static void *work(void *argument) {
  struct worker *worker = argument;
  local_identity = value_of(worker->first, 7);
  worker->last_monotonic = read_clock(CLOCK_MONOTONIC);
  worker->last_realtime = read_clock(CLOCK_REALTIME);
  for (uint64_t pass = 0;; pass++) {
    for (uint64_t at = 0; at < worker->count; at += BLOCK_WORDS) {
      uint64_t end = at + BLOCK_WORDS < worker->count ? at + BLOCK_WORDS : worker->count;
      check_block(worker, at, end, pass);
      watch_clocks(worker);
      nap(worker);
      if (local_identity != value_of(worker->first, 7)) worker->wrong_locals++;
    }
    worker->passes++;
  }
  return NULL;
}

static uint64_t sum(size_t member) {
  uint64_t total = 0;
  for (unsigned i = 0; i < worker_count; i++) total += *(_Atomic uint64_t *)((char *)&workers[i] + member);
  return total;
}

static uint64_t largest(size_t member) {
  uint64_t most = 0;
  for (unsigned i = 0; i < worker_count; i++) {
    uint64_t value = *(_Atomic uint64_t *)((char *)&workers[i] + member);
    if (value > most) most = value;
  }
  return most;
}

static uint64_t least(size_t member) {
  uint64_t fewest = UINT64_MAX;
  for (unsigned i = 0; i < worker_count; i++) {
    uint64_t value = *(_Atomic uint64_t *)((char *)&workers[i] + member);
    if (value < fewest) fewest = value;
  }
  return fewest;
}

#define SUM(member) sum(offsetof(struct worker, member))
#define LARGEST(member) largest(offsetof(struct worker, member))
#define LEAST(member) least(offsetof(struct worker, member))

static int describe(char *text, size_t room) {
  const struct otherworld_incident *incident = otherworld_last_incident();
  uint64_t errors = SUM(wrong_words) + SUM(wrong_vectors) + SUM(wrong_locals) + SUM(clock_backwards);
  return snprintf(text, room,
                  "{\"pid\":%d,\"sizeMiB\":%llu,\"threads\":%u,\"errors\":%llu,\"passes\":%llu,\"wordsChecked\":%llu,"
                  "\"leastCheckedSinceLargestGap\":%llu,\"wordsOfThread\":%llu,"
                  "\"vectorChecks\":%llu,\"wrongWords\":%llu,\"wrongVectors\":%llu,\"wrongLocals\":%llu,"
                  "\"clockBackwards\":%llu,\"monotonicNanoseconds\":%lld,\"realtimeNanoseconds\":%lld,"
                  "\"largestMonotonicGapNanoseconds\":%llu,\"largestRealtimeGapNanoseconds\":%llu,\"vectors\":\"%s\","
                  "\"procedureRuns\":%u,\"incident\":\"%s\"}\n",
                  (int)getpid(), (unsigned long long)size_mib, worker_count, (unsigned long long)errors,
                  (unsigned long long)LEAST(passes), (unsigned long long)SUM(checked),
                  (unsigned long long)LEAST(checked_since_gap), (unsigned long long)LARGEST(words_owned), (unsigned long long)SUM(naps),
                  (unsigned long long)SUM(wrong_words), (unsigned long long)SUM(wrong_vectors),
                  (unsigned long long)SUM(wrong_locals), (unsigned long long)SUM(clock_backwards),
                  (long long)read_clock(CLOCK_MONOTONIC), (long long)read_clock(CLOCK_REALTIME),
                  (unsigned long long)LARGEST(largest_monotonic_gap),
                  (unsigned long long)LARGEST(largest_realtime_gap), has_avx ? "avx" : "sse", procedure_runs,
                  incident == NULL ? "" : incident->id);
}

/* A new file under the same name: a reader never sees half a line. */
static void write_status(void) {
  char text[1024], temporary[4096];
  int length = describe(text, sizeof text);
  snprintf(temporary, sizeof temporary, "%s.new", status_path);
  FILE *file = fopen(temporary, "w");
  if (file == NULL) return;
  fwrite(text, 1, (size_t)length, file);
  if (fclose(file) == 0) rename(temporary, status_path);
}

static void on_status_signal(int number) {
  (void)number;
  status_wanted = 1;
}

static int crash_procedure(void *argument) {
  (void)argument;
  procedure_runs++;
  if (strcmp(procedure_mode, "exit") == 0) return 7;
  if (strcmp(procedure_mode, "overrun") == 0) pause();
  if (strcmp(procedure_mode, "fault") == 0) __builtin_trap();
  return OTHERWORLD_CONTINUE;
}

static void start_workers(void) {
  uint64_t total = size_mib * (1048576 / 8), each = total / worker_count;
  uint64_t *words = mmap(NULL, total * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (words == MAP_FAILED) {
    perror("counter: mmap");
    exit(1);
  }
  for (uint64_t i = 0; i < total; i++) words[i] = value_of(i, 0);
  for (unsigned i = 0; i < worker_count; i++) {
    struct worker *worker = &workers[i];
    worker->first = each * i;
    worker->words = words + worker->first;
    worker->count = i + 1 == worker_count ? total - worker->first : each;
    worker->words_owned = worker->count;
    errno = pthread_create(&worker->thread, NULL, work, worker);
    if (errno != 0) {
      perror("counter: pthread_create");
      exit(1);
    }
  }
}

static void usage(void) {
  fputs("usage: counter [--size MIB] [--threads N] [--nap MICROSECONDS] [--status FILE]\n"
        "               [--procedure continue|exit|overrun|fault]\n", stderr);
  exit(2);
}

static void read_arguments(int argc, char **argv) {
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 >= argc) usage();
    if (strcmp(argv[i], "--size") == 0) size_mib = strtoull(argv[i + 1], NULL, 10);
    else if (strcmp(argv[i], "--threads") == 0) worker_count = (unsigned)atoi(argv[i + 1]);
    else if (strcmp(argv[i], "--nap") == 0) nap_microseconds = atol(argv[i + 1]);
    else if (strcmp(argv[i], "--status") == 0) status_path = argv[i + 1];
    else if (strcmp(argv[i], "--procedure") == 0) procedure_mode = argv[i + 1];
    else usage();
  }
  if (size_mib == 0 || worker_count == 0 || worker_count > MOST_THREADS || nap_microseconds < 0) usage();
}

int main(int argc, char **argv) {
  read_arguments(argc, argv);
  has_avx = __builtin_cpu_supports("avx") != 0;
  signal(SIGUSR1, on_status_signal);
  if (procedure_mode != NULL && otherworld_register(crash_procedure, NULL) != 0) {
    fputs("counter: the crash procedure could not be registered\n", stderr);
    return 1;
  }
  start_workers();
  for (;;) {
    const struct timespec second = {1, 0};
    write_status();
    if (status_wanted) {
      char text[1024];
      status_wanted = 0;
      describe(text, sizeof text);
      fputs(text, stdout);
      fflush(stdout);
    }
    nanosleep(&second, NULL);
  }
}
