/* SPDX-License-Identifier: Apache-2.0
 * A program with a crash procedure, good or bad, that ticks at every SIGHUP and says in a file how it is.
 * Between the ticks it is in clock_nanosleep.
 *     procedure-subject MODE DIRECTORY
 * Good: continue, replace, exit, fault, overrun, signal. Bad records: checksum, entry, stack, handler. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "otherworld.h"

static const char *mode;
static char status_path[256];
static volatile int runs;
static int data_is_no_code;

static void write_status(unsigned ticks) {
  const struct otherworld_incident *incident = otherworld_last_incident();
  FILE *file = fopen(status_path, "w");
  if (file == NULL) return;
  fprintf(file, "{\"runs\":%d,\"ticks\":%u,\"id\":\"%s\",\"interrupted\":\"%s\"}\n", runs, ticks,
          incident ? incident->id : "", incident ? incident->interrupted_syscall : "");
  fclose(file);
}

static int procedure(void *argument) {
  (void)argument;
  runs++;
  if (strcmp(mode, "replace") == 0) execl("/bin/sleep", "sleep", "1000", (char *)NULL);
  if (strcmp(mode, "exit") == 0) return 7;
  if (strcmp(mode, "fault") == 0) __builtin_trap();
  if (strcmp(mode, "overrun") == 0) pause();
  return OTHERWORLD_CONTINUE;
}

static void on_tick(int number) { (void)number; }

static void on_signal(int number) {
  (void)number;
  runs++;
  otherworld_continue();
}

static int is(const char *name) { return strcmp(mode, name) == 0; }

static int enroll(void) {
  struct otherworld_options options = {procedure, NULL, 0, 3000, NULL, 0};
  int result;
  if (is("signal")) {
    signal(SIGUSR2, on_signal);
    return otherworld_register_signal(SIGUSR2);
  }
  if (is("handler")) return otherworld_register_signal(SIGUSR1);
  result = otherworld_register_with(&options);
  if (result != 0) return result;
  if (is("entry")) otherworld_record_->entry = (uint64_t)(uintptr_t)&data_is_no_code;
  if (is("stack")) mprotect((void *)(uintptr_t)otherworld_record_->stack_base, OTHERWORLD_STACK_SIZE, PROT_READ);
  otherworld_record_->crc = otherworld_crc_(otherworld_record_, offsetof(struct otherworld_record, crc));
  if (is("checksum")) otherworld_record_->crc ^= 1;
  return 0;
}

int main(int argc, char **argv) {
  unsigned ticks;
  if (argc != 3) return 2;
  mode = argv[1];
  snprintf(status_path, sizeof status_path, "%s/%s", argv[2], mode);
  signal(SIGHUP, on_tick);
  if (enroll() != 0) return 3;
  for (ticks = 0;; ticks++) {
    const struct timespec time = {3600, 0};
    write_status(ticks);
    nanosleep(&time, NULL);
  }
}
