// Uses io_uring in every way that a process may have used it when the kernel dies, says "ready" in DIRECTORY/state, and waits for
// DIRECTORY/go. Then it goes on with all of it, and says "ok", or what is not as it was.
// rings DIRECTORY [busy]: busy leaves a read of an empty pipe in flight.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MUST(condition) do { if (!(condition)) { fprintf(stderr, "line %d: %s\n", __LINE__, strerror(errno)); exit(1); } } while (0)
#define SINGLE_ISSUER (1U << 12)
#define MARK 0x1234567800000000ULL

static char lost[512];
#define CHECK(what, condition) do { if (!(condition) && !lost[0]) snprintf(lost, sizeof lost, "%s (line %d, errno %d)", what, __LINE__, errno); } while (0)

struct ring {
  int fd;
  unsigned flags, tail, head, entries;
  volatile unsigned *sq_head, *sq_tail, *cq_head, *cq_tail, *dropped, *overflow;
  unsigned *array, sq_mask, cq_mask;
  unsigned char *sqes, *cqes;
  unsigned sqe_bytes, cqe_bytes;
};

static struct ring make(unsigned entries, unsigned flags) {
  struct io_uring_params p = {.flags = flags};
  struct ring r = {.flags = flags, .entries = entries};
  r.fd = (int)syscall(SYS_io_uring_setup, entries, &p);
  MUST(r.fd >= 0);
  r.sqe_bytes = flags & IORING_SETUP_SQE128 ? 128 : 64;
  r.cqe_bytes = flags & IORING_SETUP_CQE32 ? 32 : 16;
  size_t completions = p.cq_off.cqes + p.cq_entries * r.cqe_bytes, submissions = p.sq_off.array + p.sq_entries * 4;
  size_t bytes = completions > submissions ? completions : submissions;
  unsigned char *rings = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_SQ_RING);
  MUST(rings != MAP_FAILED);
  r.sqes = mmap(0, p.sq_entries * r.sqe_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_SQES);
  MUST(r.sqes != MAP_FAILED);
  r.sq_head = (unsigned *)(rings + p.sq_off.head);
  r.sq_tail = (unsigned *)(rings + p.sq_off.tail);
  r.dropped = (unsigned *)(rings + p.sq_off.dropped);
  r.array = (unsigned *)(rings + p.sq_off.array);
  r.sq_mask = *(unsigned *)(rings + p.sq_off.ring_mask);
  r.cq_head = (unsigned *)(rings + p.cq_off.head);
  r.cq_tail = (unsigned *)(rings + p.cq_off.tail);
  r.overflow = (unsigned *)(rings + p.cq_off.overflow);
  r.cq_mask = *(unsigned *)(rings + p.cq_off.ring_mask);
  r.cqes = rings + p.cq_off.cqes;
  for (unsigned i = 0; i < p.sq_entries; i++) r.array[i] = i;
  return r;
}

static struct io_uring_sqe *ask(struct ring *r, int opcode, unsigned flags, uint64_t data) {
  struct io_uring_sqe *sqe = (struct io_uring_sqe *)(r->sqes + (r->tail & r->sq_mask) * r->sqe_bytes);
  memset(sqe, 0, r->sqe_bytes);
  sqe->opcode = opcode;
  sqe->flags = flags;
  sqe->user_data = data;
  // The program's own count, which the kernel's has to agree with.
  r->tail++;
  __atomic_store_n(r->sq_tail, r->tail, __ATOMIC_RELEASE);
  return sqe;
}

static int enter(struct ring *r, unsigned submit, unsigned wait) {
  return (int)syscall(SYS_io_uring_enter, r->fd, submit, wait, wait ? IORING_ENTER_GETEVENTS : 0, 0, 0);
}

/** The next completion, if there is one. */
static struct io_uring_cqe *next(struct ring *r) {
  if (r->head == __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE)) return 0;
  return (struct io_uring_cqe *)(r->cqes + (r->head & r->cq_mask) * r->cqe_bytes);
}

static void seen(struct ring *r) {
  r->head++;
  __atomic_store_n(r->cq_head, r->head, __ATOMIC_RELEASE);
}

/** Makes many requests that do nothing, and reads all completions. */
static void count(struct ring *r, unsigned number, unsigned flags) {
  while (number > 0) {
    unsigned batch = number < r->entries ? number : r->entries;
    for (unsigned i = 0; i < batch; i++) ask(r, IORING_OP_NOP, flags, i);
    MUST(enter(r, batch, 0) == (int)batch);
    while (next(r)) seen(r);
    number -= batch;
  }
}

static void has_counted(struct ring *r, const char *what) {
  CHECK(what, *r->sq_head == r->tail && *r->dropped == 0 && *r->overflow == 0 && *r->cq_head == r->head);
}

/** A request does what it is to do. */
static void works(struct ring *r, const char *what) {
  char path[] = "/var/tmp/rings-XXXXXX", text[] = "through a ring", got[sizeof text];
  int file = mkstemp(path);
  unlink(path);
  struct io_uring_sqe *sqe = ask(r, IORING_OP_WRITE, 0, MARK + 7);
  sqe->fd = file;
  sqe->addr = (uintptr_t)text;
  sqe->len = sizeof text;
  CHECK(what, enter(r, 1, 1) == 1);
  struct io_uring_cqe *cqe = next(r);
  CHECK(what, cqe && cqe->user_data == MARK + 7 && cqe->res == (int)sizeof text);
  if (cqe) seen(r);
  CHECK(what, pread(file, got, sizeof got, 0) == sizeof got && memcmp(got, text, sizeof got) == 0);
  close(file);
  has_counted(r, what);
}

static struct ring waited, submitted;
static volatile int waited_result = -1000, submitted_result = -1000;
static volatile int tids[2];

static void *waits(void *unused) {
  (void)unused;
  tids[0] = (int)syscall(SYS_gettid);
  waited_result = enter(&waited, 0, 1);
  return 0;
}

static void *submits(void *unused) {
  (void)unused;
  tids[1] = (int)syscall(SYS_gettid);
  ask(&submitted, IORING_OP_NOP, 0, MARK + 9);
  submitted_result = enter(&submitted, 1, 2);
  return 0;
}

static int sleeps_in_ring(int tid) {
  char path[64], line[128] = "", *state;
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  if (!fgets(line, sizeof line, file)) line[0] = 0;
  fclose(file);
  if (strncmp(line, "426 ", 4) != 0) return 0;
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  file = fopen(path, "r");
  if (!file || !fgets(line, sizeof line, file)) return 0;
  fclose(file);
  state = strrchr(line, ')');
  return state && state[2] == 'S';
}

static void say(const char *directory, const char *text) {
  char path[256], new[256];
  snprintf(path, sizeof path, "%s/state", directory);
  snprintf(new, sizeof new, "%s/state.new", directory);
  FILE *file = fopen(new, "w");
  MUST(file && fprintf(file, "%s\n", text) > 0 && fclose(file) == 0 && rename(new, path) == 0);
}

int main(int argc, char **argv) {
  const char *directory = argv[1];
  char go[256];
  int ends[2];
  pthread_t threads[2];
  snprintf(go, sizeof go, "%s/go", directory);
  MUST(pipe(ends) == 0);
  if (argc > 2) {
    struct ring busy = make(4, 0);
    struct io_uring_sqe *sqe = ask(&busy, IORING_OP_READ, 0, 1);
    sqe->fd = ends[0];
    sqe->addr = (uintptr_t)lost;
    sqe->len = 1;
    MUST(enter(&busy, 1, 0) == 1);
    say(directory, "ready");
    for (;;) pause();
  }
  struct ring plain = make(64, 0), wide = make(8, IORING_SETUP_SQE128 | IORING_SETUP_CQE32);
  struct ring uneven = make(16, 0), full = make(4, 0), single = make(8, SINGLE_ISSUER), worked = make(8, 0);
  waited = make(4, 0);
  submitted = make(4, 0);
  int another = fcntl(plain.fd, F_DUPFD_CLOEXEC, 100);
  count(&plain, 300000, 0);
  for (unsigned i = 0; i < 3; i++) ask(&plain, IORING_OP_NOP, 0, MARK + i);
  MUST(enter(&plain, 3, 0) == 3);
  for (unsigned i = 0; i < 2; i++) ask(&plain, IORING_OP_NOP, 0, MARK + 100 + i);
  count(&wide, 1001, 0);
  count(&uneven, 500, 0);
  count(&uneven, 77, IOSQE_CQE_SKIP_SUCCESS);
  count(&full, 9, 0);
  // Its completions are in all places, with the end of the memory between them.
  for (unsigned round = 0; round < 2; round++) {
    for (unsigned i = 0; i < 4; i++) ask(&full, IORING_OP_NOP, 0, MARK + 4 * round + i);
    MUST(enter(&full, 4, 0) == 4);
  }
  count(&single, 50, 0);
  // A thread of the kernel's does these.
  for (unsigned i = 0; i < 4; i++) ask(&worked, IORING_OP_NOP, IOSQE_ASYNC, i);
  MUST(enter(&worked, 4, 4) == 4);
  while (next(&worked)) seen(&worked);
  MUST(pthread_create(&threads[0], 0, waits, 0) == 0 && pthread_create(&threads[1], 0, submits, 0) == 0);
  while (!tids[0] || !tids[1] || !sleeps_in_ring(tids[0]) || !sleeps_in_ring(tids[1])) usleep(1000);
  say(directory, "ready");
  while (access(go, F_OK) != 0) usleep(10000);

  CHECK("requests that had not been taken", *plain.sq_head + 2 == plain.tail);
  CHECK("another descriptor", (int)syscall(SYS_io_uring_enter, another, 2, 0, 0, 0, 0) == 2);
  for (unsigned i = 0; i < 5; i++) {
    struct io_uring_cqe *cqe = next(&plain);
    uint64_t expected = i < 3 ? MARK + i : MARK + 100 + i - 3;
    CHECK("completions that had not been read", cqe && cqe->user_data == expected && cqe->res == 0);
    if (cqe) seen(&plain);
  }
  CHECK("no more completions", !next(&plain));
  works(&plain, "the plain ring");
  works(&wide, "wide entries");
  works(&uneven, "fewer completions than requests");
  works(&single, "the only issuer");
  works(&worked, "worked by the kernel's threads");
  for (unsigned i = 0; i < 8; i++) {
    struct io_uring_cqe *cqe = next(&full);
    CHECK("a full ring", cqe && cqe->user_data == MARK + i);
    if (cqe) seen(&full);
  }
  works(&full, "a full ring goes on");
  count(&plain, 1000, 0);
  ask(&worked, IORING_OP_NOP, IOSQE_ASYNC, 5);
  CHECK("a new worker", enter(&worked, 1, 1) == 1 && next(&worked));
  CHECK("who waits, waits", waited_result == -1000);
  ask(&waited, IORING_OP_NOP, 0, MARK + 8);
  CHECK("what is waited for", enter(&waited, 1, 0) == 1);
  // A kernel that did not die lets it wait on.
  if (submitted_result == -1000) {
    ask(&submitted, IORING_OP_NOP, 0, 0);
    CHECK("one that is still waited for", enter(&submitted, 1, 0) == 1);
  }
  MUST(pthread_join(threads[0], 0) == 0 && pthread_join(threads[1], 0) == 0);
  CHECK("who waited has it", waited_result == 0 && next(&waited) && next(&waited)->user_data == MARK + 8);
  CHECK("who had submitted knows", submitted_result == 1 && next(&submitted)->user_data == MARK + 9);
  seen(&waited);
  works(&waited, "the ring that was waited in");
  say(directory, lost[0] ? lost : "ok");
  for (;;) pause();
}
