/* SPDX-License-Identifier: Apache-2.0
 * Stands in for kernel and CRIU around one process of this machine, so that the changes that a crash procedure asks
 * for can be tried without a guest: stops it, tells its registers, lets the caller change them, lets it run on.
 *     stage PID        prints JSON {regs, xstate, offsets, mask}; reads lines from standard input:
 *     mem ADDRESS HEX | regs HEX | xstate HEX | queue SIGNAL | go */
#define _GNU_SOURCE
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static uint8_t xstate[65536];
static char line[262144];
static uint8_t data[131072];

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void hex(const char *name, const void *bytes, size_t length, const char *end) {
  size_t i;
  printf("\"%s\":\"", name);
  for (i = 0; i < length; i++) printf("%02x", ((const uint8_t *)bytes)[i]);
  printf("\"%s", end);
}

static size_t unhex(const char *text) {
  size_t length = 0;
  unsigned byte;
  while (sscanf(text + 2 * length, "%2x", &byte) == 1) data[length++] = (uint8_t)byte;
  return length;
}

static void tell(pid_t pid) {
  struct user_regs_struct regs;
  struct iovec vector = {xstate, sizeof xstate};
  uint64_t mask;
  uint32_t offsets[20] = {0}, size, unused_c, unused_d;
  unsigned i;
  if (ptrace(PTRACE_GETREGS, pid, 0, &regs) != 0) fail("PTRACE_GETREGS");
  if (ptrace(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &vector) != 0) fail("PTRACE_GETREGSET");
  if (ptrace(PTRACE_GETSIGMASK, pid, (void *)sizeof mask, &mask) != 0) fail("PTRACE_GETSIGMASK");
  printf("{");
  hex("regs", &regs, sizeof regs, ",");
  hex("xstate", xstate, vector.iov_len, ",");
  hex("mask", &mask, sizeof mask, ",\"components\":[");
  for (i = 0; i < 20; i++) {
    size = 0;
    if (i >= 2) __cpuid_count(13, i, size, offsets[i], unused_c, unused_d);
    printf("%s[%u,%u]", i ? "," : "", offsets[i], size);
  }
  printf("]}\n");
  fflush(stdout);
}

static void obey(pid_t pid, int memory) {
  struct iovec vector = {data, 0};
  unsigned long long address;
  int used, number;
  if (sscanf(line, "mem %llu %n", &address, &used) == 1) {
    size_t length = unhex(line + used);
    if (pwrite(memory, data, length, (off_t)address) != (ssize_t)length) fail("mem");
  } else if (strncmp(line, "regs ", 5) == 0) {
    unhex(line + 5);
    if (ptrace(PTRACE_SETREGS, pid, 0, data) != 0) fail("PTRACE_SETREGS");
  } else if (strncmp(line, "xstate ", 7) == 0) {
    vector.iov_len = unhex(line + 7);
    if (ptrace(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &vector) != 0) fail("PTRACE_SETREGSET");
  } else if (sscanf(line, "queue %d", &number) == 1) {
    union sigval value = {1};
    if (sigqueue(pid, number, value) != 0) fail("sigqueue");
  } else {
    fprintf(stderr, "unknown order: %.40s\n", line);
    exit(1);
  }
}

int main(int argc, char **argv) {
  char path[64];
  pid_t pid = argc > 1 ? atoi(argv[1]) : 0;
  int memory, status;
  snprintf(path, sizeof path, "/proc/%d/mem", pid);
  memory = open(path, O_RDWR);
  if (memory < 0) fail(path);
  if (ptrace(PTRACE_SEIZE, pid, 0, 0) != 0) fail("PTRACE_SEIZE");
  if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) != 0) fail("PTRACE_INTERRUPT");
  if (waitpid(pid, &status, __WALL) != pid) fail("waitpid");
  tell(pid);
  while (fgets(line, sizeof line, stdin) != NULL && strncmp(line, "go", 2) != 0) obey(pid, memory);
  if (ptrace(PTRACE_DETACH, pid, 0, 0) != 0) fail("PTRACE_DETACH");
  return 0;
}
