/* SPDX-License-Identifier: Apache-2.0
 * A program with a crash procedure, and with what cannot be brought back: an io_uring with its memory, which its second
 * thread has made, a userfaultfd, and memory that this watches. Its first thread is in clock_nanosleep.
 *     alone-subject MODE DIRECTORY
 * The procedure says in a file what it was told and what it found, and then: save (ends with status 7), replace
 * (executes another program), go-on (continues), crash, overrun, jump (goes into main by siglongjmp, which forks and
 * says the number of its child in MODE.forked). If main goes on, it says so in another file. With replace its standard
 * error leads to the userfaultfd. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "otherworld.h"

static const char *mode;
static char said_path[256], went_on_path[256], kept_path[256];
static int ring = -1, faults = -1, kept = -1;
static volatile pid_t second;
static void *watched;
static sigjmp_buf fault, main_loop;

enum { WATCHED_SIZE = 65536 };

static int is(const char *name) { return strcmp(mode, name) == 0; }

static int errno_of_read(int fd) {
  char byte;
  return read(fd, &byte, 1) < 0 ? errno : 0;
}

static void on_fault(int number) {
  (void)number;
  siglongjmp(fault, 1);
}

/* Whether the memory that was watched is a fault, though much memory of its size is mapped since. */
static int is_hole(void) {
  struct sigaction action;
  int i;
  for (i = 0; i < 64; i++) {
    char *memory = mmap(NULL, WATCHED_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return -1;
    memory[0] = 'x';
  }
  memset(&action, 0, sizeof action);
  action.sa_handler = on_fault;
  sigaction(SIGSEGV, &action, NULL);
  if (sigsetjmp(fault, 1) != 0) return 1;
  return *(volatile char *)watched == 'x' ? 0 : -2;
}

static int procedure(void *argument) {
  const struct otherworld_item *item = NULL;
  int threads = 0, areas = 0;
  FILE *file = fopen(said_path, "w");
  (void)argument;
  if (file == NULL) return 9;
  while ((item = otherworld_next(OTHERWORLD_LOST, item)) != NULL) {
    threads += item->tid == second;
    areas += item->fd == -1 && item->tid == 0;
  }
  fprintf(file,
          "{\"may\":%d,\"ringLost\":%d,\"ringRead\":%d,\"faultsLost\":%d,\"keptLost\":%d,\"keptWrite\":%d,"
          "\"threads\":%d,\"areas\":%d,\"second\":%d,\"hole\":%d}\n",
          otherworld_may_continue(), otherworld_is_lost(ring), errno_of_read(ring), otherworld_is_lost(faults),
          otherworld_is_lost(kept), (int)write(kept, "saved", 5), threads, areas, (int)syscall(SYS_tgkill, getpid(), second, 0), is_hole());
  fclose(file);
  if (is("save")) return 7;
  if (is("replace")) execl("/bin/sleep", "sleep", "1000", (char *)NULL);
  if (is("crash")) __builtin_trap();
  if (is("overrun")) pause();
  if (is("jump")) siglongjmp(main_loop, 1);
  return OTHERWORLD_CONTINUE;
}

static void *with_ring(void *argument) {
  struct io_uring_params params;
  memset(&params, 0, sizeof params);
  ring = (int)syscall(SYS_io_uring_setup, 4, &params);
  if (ring >= 0)
    mmap(NULL, params.sq_off.array + params.sq_entries * sizeof(unsigned), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
         IORING_OFF_SQ_RING);
  second = (pid_t)syscall(SYS_gettid);
  for (;;) pause();
  return argument;
}

static int watch_memory(void) {
  struct uffdio_api api = {UFFD_API, 0, 0};
  struct uffdio_register range;
  watched = mmap(NULL, WATCHED_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(&range, 0, sizeof range);
  range.range.start = (unsigned long)watched;
  range.range.len = WATCHED_SIZE;
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  if (faults < 0 || ioctl(faults, UFFDIO_API, &api) != 0) return -1;
  return ioctl(faults, UFFDIO_REGISTER, &range);
}

int main(int argc, char **argv) {
  struct otherworld_options options = {procedure, NULL, 0, 5000, NULL, 0};
  const struct timespec time = {3600, 0};
  pthread_t thread;
  FILE *file;
  char forked_path[256];
  pid_t child;
  if (argc != 3) return 2;
  mode = argv[1];
  snprintf(said_path, sizeof said_path, "%s/%s", argv[2], mode);
  snprintf(went_on_path, sizeof went_on_path, "%s/%s.went-on", argv[2], mode);
  snprintf(kept_path, sizeof kept_path, "%s/%s.kept", argv[2], mode);
  kept = open(kept_path, O_CREAT | O_WRONLY, 0600);
  if (kept < 0 || watch_memory() != 0) return 3;
  if (pthread_create(&thread, NULL, with_ring, NULL) != 0) return 4;
  while (second == 0) usleep(10000);
  if (ring < 0 || otherworld_register_with(&options) != 0) return 5;
  if (is("replace")) dup2(faults, 2);
  if (sigsetjmp(main_loop, 1) == 0) nanosleep(&time, NULL);
  file = fopen(went_on_path, "w");
  if (file != NULL) fclose(file);
  child = fork();
  if (child == 0) pause();
  snprintf(forked_path, sizeof forked_path, "%s/%s.forked", argv[2], mode);
  file = fopen(forked_path, "w");
  if (file != NULL) {
    fprintf(file, "%d\n", (int)child);
    fclose(file);
  }
  pause();
  return 0;
}
