// switching: three threads that share the last CPU and never come to an end. Two of them give it to one another all
// the time, and have other values in registers each time: their count is in R12, and the segment bases, the key rights
// and XMM0 follow from it. The third one computes and keeps its registers; it has less of the CPU than they, who would
// seldom follow one another otherwise. Prints the TID of each, and "ready".
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

// By R12: the GS base is that, the FS base has bit 32 set besides, PKRU is shifted by 4 bits, XMM0 has it twice.
#define SET_BY_COUNT                                                                                       \
  "wrgsbase %%r12\n mov %%r12, %%r13\n bts $32, %%r13\n wrfsbase %%r13\n"                                  \
  "movq %%r12, %%xmm0\n punpcklqdq %%xmm0, %%xmm0\n"                                                       \
  "mov %%r12d, %%eax\n shl $4, %%eax\n xor %%ecx, %%ecx\n xor %%edx, %%edx\n wrpkru\n"

// The number of the thread is in all other registers that a call leaves alone.
#define FILL                                                                                               \
  "mov %[number], %%rbx\n mov %%rbx, %%rbp\n mov %%rbx, %%rsi\n mov %%rbx, %%rdi\n mov %%rbx, %%r8\n"      \
  "mov %%rbx, %%r9\n mov %%rbx, %%r10\n mov %%rbx, %%r14\n mov %%rbx, %%r15\n movq %%rbx, %%xmm1\n"        \
  "movdqa %%xmm1, %%xmm7\n movdqa %%xmm1, %%xmm15\n imul $1000000, %%rbx, %%r12\n"

static void *give(void *number) {
  __asm__ volatile(FILL "1: inc %%r12\n" SET_BY_COUNT "mov $24, %%eax\n syscall\n jmp 1b\n"
                   :
                   : [number] "r"(number)
                   : "memory", "cc");
  return NULL;
}

static void *compute(void *number) {
  if (setpriority(PRIO_PROCESS, gettid(), 5) != 0) perror("setpriority"), exit(1);
  __asm__ volatile(FILL SET_BY_COUNT "1: jmp 1b\n" : : [number] "r"(number) : "memory", "cc");
  return NULL;
}

struct start {
  void *(*run)(void *);
  uintptr_t number;
};

static void *begin(void *argument) {
  struct start *start = argument;
  cpu_set_t last;
  CPU_ZERO(&last);
  CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &last);
  if (sched_setaffinity(0, sizeof last, &last) != 0) perror("sched_setaffinity"), exit(1);
  printf("%d %lu\n", gettid(), start->number);
  fflush(stdout);
  return start->run((void *)start->number);
}

int main(void) {
  static struct start starts[] = {{give, 1}, {give, 2}, {compute, 3}};
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, begin, &starts[i]) != 0) exit(1);
  }
  sleep(2);
  puts("ready");
  fflush(stdout);
  pause();
}
