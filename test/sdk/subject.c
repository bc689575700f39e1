/* SPDX-License-Identifier: Apache-2.0
 * A program that is stopped at two places, with every register that it can name full of a pattern, and that finds
 * out whether its crash procedure left anything behind there.
 *     subject MODE     continue, jump, stay, exit, exec, overrun, fault, signal, nothing; told, told-jump: it prints
 *                      what it is told before it continues
 * Prints one line "ready" when it may be stopped and, in the end, one JSON line about itself. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "otherworld.h"

static volatile int runs;
static volatile int stop_spinning;
static const char *mode;
static char told[512];

static void clobber(void) {
  __asm__ volatile(
      "fninit\n\tfldpi\n\tfldpi\n\t"
      "pcmpeqd %%xmm0, %%xmm0\n\tpcmpeqd %%xmm7, %%xmm7\n\tpcmpeqd %%xmm15, %%xmm15\n\t"
      "vpcmpeqd %%ymm3, %%ymm3, %%ymm3\n\tvzeroupper" ::: "xmm0", "xmm3", "xmm7", "xmm15", "st", "st(1)");
}

static void note_incident(void) {
  const struct otherworld_incident *incident = otherworld_last_incident();
  const struct otherworld_item *item = otherworld_next(OTHERWORLD_IN_DOUBT, NULL);
  snprintf(told, sizeof told,
           "\"id\":\"%s\",\"resurrections\":%u,\"panicTime\":\"%lld\",\"interrupted\":\"%s\",\"doubt\":\"%s\",\"doubtFd\":%d,"
           "\"lost\":%d,\"aligned\":%d",
           incident->id, incident->resurrections, (long long)incident->panic_time_nanoseconds,
           incident->interrupted_syscall, item ? item->what : "", item ? item->fd : -2,
           otherworld_next(OTHERWORLD_LOST, NULL) != NULL, ((uintptr_t)__builtin_frame_address(0) & 15) == 0);
}

static int procedure(void *argument) {
  runs++;
  note_incident();
  clobber();
  stop_spinning = 1;
  if (argument != (void *)&runs) return 99;
  if (strncmp(mode, "told", 4) == 0) {
    const struct otherworld_item *item = otherworld_next(OTHERWORLD_LOST, NULL);
    printf("{\"may\":%d,\"lost\":%d,\"what\":\"%s\"}\n", otherworld_may_continue(), otherworld_is_lost(5),
           item ? item->what : "");
    fflush(stdout);
  }
  if (strcmp(mode, "jump") == 0 || strcmp(mode, "told-jump") == 0) otherworld_continue();
  if (strcmp(mode, "exit") == 0) return 7;
  if (strcmp(mode, "exec") == 0) execl("/bin/true", "true", (char *)NULL);
  if (strcmp(mode, "overrun") == 0) pause();
  if (strcmp(mode, "fault") == 0) __builtin_trap();
  return OTHERWORLD_CONTINUE;
}

static void on_signal(int number, siginfo_t *info, void *context) {
  (void)context;
  runs += number == SIGUSR2 && info->si_code == SI_QUEUE && info->si_value.sival_int == (int)OTHERWORLD_VERSION;
  note_incident();
  clobber();
  stop_spinning = 1;
  otherworld_continue();
}

/* Spins with patterns in general, x87 and vector registers; returns what is no longer as it was. */
static int spin_with_patterns(void) {
  uint64_t in[4][4], out[4][4];
  uint64_t general[4] = {0x1111111111111111u, 0x2222222222222222u, 0x3333333333333333u, 0x4444444444444444u};
  double st = 0;
  uint32_t mxcsr_in = 0x3f80, mxcsr_out = 0, mxcsr_was;
  int wrong = 0, i;
  for (i = 0; i < 16; i++) in[i / 4][i % 4] = UINT64_C(0x0101010101010101) * (uint64_t)(i + 1);
  __asm__ volatile(
      "stmxcsr %[was]\n\tldmxcsr %[mxin]\n\t"
      "vmovdqu 0(%[in]), %%ymm0\n\tvmovdqu 32(%[in]), %%ymm3\n\tvmovdqu 64(%[in]), %%ymm7\n\tvmovdqu 96(%[in]), %%ymm15\n\t"
      "fninit\n\tfldl2e\n\t"
      "movq 0(%[g]), %%rbx\n\tmovq 8(%[g]), %%r12\n\tmovq 16(%[g]), %%r13\n\tmovq 24(%[g]), %%r15\n\t"
      "movq $0x5a5a, -64(%%rsp)\n\t" /* the red zone belongs to the interrupted context too */
      "stc\n\t"
      "1: movl %[stop], %%eax\n\ttestl %%eax, %%eax\n\tjz 1b\n\t"
      "cmpq $0x5a5a, -64(%%rsp)\n\tje 2f\n\tincl %[wrong]\n\t2:"
      "movq %%rbx, 0(%[g])\n\tmovq %%r12, 8(%[g])\n\tmovq %%r13, 16(%[g])\n\tmovq %%r15, 24(%[g])\n\t"
      "vmovdqu %%ymm0, 0(%[out])\n\tvmovdqu %%ymm3, 32(%[out])\n\tvmovdqu %%ymm7, 64(%[out])\n\tvmovdqu %%ymm15, 96(%[out])\n\t"
      "fstpl %[st]\n\tstmxcsr %[mxout]\n\tldmxcsr %[was]\n\tvzeroupper"
      : [st] "=m"(st), [mxout] "=m"(mxcsr_out), [was] "=m"(mxcsr_was), [wrong] "+m"(wrong)
      : [in] "r"(in), [out] "r"(out), [g] "r"(general), [stop] "m"(stop_spinning), [mxin] "m"(mxcsr_in)
      : "rax", "rbx", "r12", "r13", "r15", "xmm0", "xmm3", "xmm7", "xmm15", "st", "memory", "cc");
  wrong += memcmp(in, out, sizeof in) != 0;
  wrong += general[0] != 0x1111111111111111u || general[3] != 0x4444444444444444u;
  wrong += st < 1.4426 || st > 1.4427;
  wrong += mxcsr_out != mxcsr_in;
  return wrong;
}

int main(int argc, char **argv) {
  sigset_t blocked, now;
  int wrong, result = 0;
  mode = argc > 1 ? argv[1] : "nothing";
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGWINCH);
  sigprocmask(SIG_BLOCK, &blocked, NULL);
  if (strcmp(mode, "signal") == 0) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGUSR2, &action, NULL);
    result = otherworld_register_signal(SIGUSR2);
  } else if (strcmp(mode, "nothing") != 0) {
    result = otherworld_register(procedure, (void *)&runs);
  }
  printf("{\"ready\":%d}\n", result);
  fflush(stdout);
  wrong = spin_with_patterns();
  sigprocmask(SIG_BLOCK, NULL, &now);
  wrong += !sigismember(&now, SIGWINCH) || sigismember(&now, SIGUSR2);
  printf("{\"wrong\":%d,\"runs\":%d,\"state\":%u,%s}\n", wrong, runs,
         otherworld_record_ ? otherworld_record_->incident.state : 0, told);
  fflush(stdout);
  if (strcmp(mode, "stay") == 0) sleep(60);
  return 0;
}
