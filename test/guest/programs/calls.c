// calls THREADS: each thread makes system calls as fast as it can, sends numbers through a pipe of its own, and keeps a
// digest of all that came out. When another kernel runs it computes the digests anew: prints "whole", or what is
// another. "ready" says that all have begun.
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
};

static volatile int stop;
static volatile int begun;

static uint64_t mix(uint64_t digest, uint64_t value) {
  digest = (digest ^ value) * UINT64_C(0x9e3779b97f4a7c15);
  return digest ^ (digest >> 29);
}

static void *run(void *argument) {
  struct thread *self = argument;
  __sync_fetch_and_add(&begun, 1);
  while (!stop) {
    uint64_t sent = self->count, received = ~sent;
    if (getppid() < 0 || write(self->ends[1], &sent, sizeof sent) != sizeof sent ||
        read(self->ends[0], &received, sizeof received) != sizeof received) {
      printf("call %llu failed\n", (unsigned long long)self->count);
      exit(1);
    }
    self->digest = mix(self->digest, received);
    self->count++;
  }
  return NULL;
}

static void read_boot(char *id, size_t size) {
  FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
  if (file == NULL || fgets(id, (int)size, file) == NULL) perror("boot_id"), exit(1);
  fclose(file);
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 1;
  struct thread *all = calloc(threads, sizeof *all);
  char first[64] = "", now[64] = "";
  read_boot(first, sizeof first);
  for (int i = 0; i < threads; i++)
    if (pipe(all[i].ends) != 0 || pthread_create(&all[i].id, NULL, run, &all[i]) != 0) exit(1);
  while (begun < threads) usleep(10000);
  puts("ready");
  fflush(stdout);
  for (read_boot(now, sizeof now); strcmp(first, now) == 0; read_boot(now, sizeof now)) usleep(100000);
  stop = 1;
  for (int i = 0; i < threads; i++) {
    pthread_join(all[i].id, NULL);
    uint64_t digest = 0;
    for (uint64_t n = 0; n < all[i].count; n++) digest = mix(digest, n);
    if (digest != all[i].digest) printf("thread %d: another digest after %llu\n", i, (unsigned long long)all[i].count), exit(1);
  }
  puts("whole");
  return 0;
}
