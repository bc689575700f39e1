// calls THREADS: each thread makes system calls as fast as it can, sends numbers through a pipe of its own, and keeps a
// digest of all that came out. When another kernel runs it computes the digests anew, and prints one line: "whole", or
// what is another. A thread whose call failed stops there: "whole, but for TID CALL, TID CALL ..." names those. "ready"
// says that all have begun.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct thread {
  pthread_t id;
  int ends[2];
  uint64_t count;
  uint64_t digest;
  pid_t tid;
  const char *failed;  // Its call that failed, if one did
};

static volatile int stop;
static volatile int begun;

static uint64_t mix(uint64_t digest, uint64_t value) {
  digest = (digest ^ value) * UINT64_C(0x9e3779b97f4a7c15);
  return digest ^ (digest >> 29);
}

static void *run(void *argument) {
  struct thread *self = argument;
  self->tid = gettid();
  __sync_fetch_and_add(&begun, 1);
  while (!stop && self->failed == NULL) {
    uint64_t sent = self->count, received = ~sent;
    if (getppid() < 0)
      self->failed = "getppid";
    else if (write(self->ends[1], &sent, sizeof sent) != sizeof sent)
      self->failed = "write";
    else if (read(self->ends[0], &received, sizeof received) != sizeof received)
      self->failed = "read";
    else {
      self->digest = mix(self->digest, received);
      self->count++;
    }
  }
  return NULL;
}

// Whether the boot id could be read: a call of this may be in doubt, and ends then.
static int read_boot(char *id, size_t size) {
  FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
  if (file == NULL) return 0;
  int is_read = fgets(id, (int)size, file) != NULL;
  fclose(file);
  return is_read;
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 1;
  struct thread *all = calloc(threads, sizeof *all);
  char first[64] = "", now[64] = "";
  if (!read_boot(first, sizeof first)) perror("boot_id"), exit(1);
  for (int i = 0; i < threads; i++)
    if (pipe(all[i].ends) != 0 || pthread_create(&all[i].id, NULL, run, &all[i]) != 0) exit(1);
  while (begun < threads) usleep(10000);
  puts("ready");
  fflush(stdout);
  while (!read_boot(now, sizeof now) || strcmp(first, now) == 0) usleep(100000);
  stop = 1;
  for (int i = 0; i < threads; i++) {
    pthread_join(all[i].id, NULL);
    uint64_t digest = 0;
    for (uint64_t n = 0; n < all[i].count; n++) digest = mix(digest, n);
    if (digest != all[i].digest) printf("thread %d: another digest after %llu\n", i, (unsigned long long)all[i].count), exit(1);
  }
  printf("whole");
  const char *between = ", but for ";
  for (int i = 0; i < threads; i++)
    if (all[i].failed != NULL) printf("%s%d %s", between, all[i].tid, all[i].failed), between = ", ";
  puts("");
  return 0;
}
