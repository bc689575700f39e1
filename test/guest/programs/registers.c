// registers CPUS: in one thread for each CPU, fills every register with values of its own, in user mode, and looks at
// them again when another kernel runs: prints "whole" or what is another. "ready" says that all are filled.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct registers {
  uint8_t ymm[16][32];   // 0
  uint8_t st[8][16];     // 512: ten bytes each
  uint64_t general[14];  // 640: rax rbx rcx rdx rsi rdi rbp r8 to r13 r14; r15 is the pointer
  uint32_t mxcsr;        // 752
  uint16_t fcw;          // 756
};

static volatile int go;
static volatile int filled;

// Loads all, spins until `go`, stores all. R15 alone tells where they are, so it is compared by being used.
static void hold(const struct registers *in, struct registers *out) {
  __asm__ volatile(
      "push %%rbp\n push %%rbx\n push %[out]\n mov %[in], %%r15\n"
      "fninit\n fldcw 756(%%r15)\n ldmxcsr 752(%%r15)\n"
      "fldt 624(%%r15)\n fldt 608(%%r15)\n fldt 592(%%r15)\n fldt 576(%%r15)\n"
      "fldt 560(%%r15)\n fldt 544(%%r15)\n fldt 528(%%r15)\n fldt 512(%%r15)\n"
#define LOAD(n) "vmovdqu " #n "*32(%%r15), %%ymm" #n "\n"
      LOAD(0) LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5) LOAD(6) LOAD(7)
      LOAD(8) LOAD(9) LOAD(10) LOAD(11) LOAD(12) LOAD(13) LOAD(14) LOAD(15)
      "mov 640(%%r15), %%rax\n mov 648(%%r15), %%rbx\n mov 656(%%r15), %%rcx\n mov 664(%%r15), %%rdx\n"
      "mov 672(%%r15), %%rsi\n mov 680(%%r15), %%rdi\n mov 688(%%r15), %%rbp\n mov 696(%%r15), %%r8\n"
      "mov 704(%%r15), %%r9\n mov 712(%%r15), %%r10\n mov 720(%%r15), %%r11\n mov 728(%%r15), %%r12\n"
      "mov 736(%%r15), %%r13\n mov 744(%%r15), %%r14\n"
      "lock incl %[filled]\n"
      "1: cmpl $0, %[go]\n je 1b\n"
      "xchg %%r15, (%%rsp)\n"
      "mov %%rax, 640(%%r15)\n mov %%rbx, 648(%%r15)\n mov %%rcx, 656(%%r15)\n mov %%rdx, 664(%%r15)\n"
      "mov %%rsi, 672(%%r15)\n mov %%rdi, 680(%%r15)\n mov %%rbp, 688(%%r15)\n mov %%r8, 696(%%r15)\n"
      "mov %%r9, 704(%%r15)\n mov %%r10, 712(%%r15)\n mov %%r11, 720(%%r15)\n mov %%r12, 728(%%r15)\n"
      "mov %%r13, 736(%%r15)\n mov %%r14, 744(%%r15)\n"
#define STORE(n) "vmovdqu %%ymm" #n ", " #n "*32(%%r15)\n"
      STORE(0) STORE(1) STORE(2) STORE(3) STORE(4) STORE(5) STORE(6) STORE(7)
      STORE(8) STORE(9) STORE(10) STORE(11) STORE(12) STORE(13) STORE(14) STORE(15)
      "stmxcsr 752(%%r15)\n fnstcw 756(%%r15)\n"
      "fstpt 512(%%r15)\n fstpt 528(%%r15)\n fstpt 544(%%r15)\n fstpt 560(%%r15)\n"
      "fstpt 576(%%r15)\n fstpt 592(%%r15)\n fstpt 608(%%r15)\n fstpt 624(%%r15)\n"
      "add $8, %%rsp\n pop %%rbx\n pop %%rbp\n fninit\n vzeroall\n"
      :
      : [in] "r"(in), [out] "r"(out), [go] "m"(go), [filled] "m"(filled)
      : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
  uint32_t usual = 0x1f80;
  __asm__ volatile("ldmxcsr %0" : : "m"(usual));
}

static void fill(struct registers *r, int cpu) {
  unsigned char *bytes = (unsigned char *)r;
  memset(r, 0, sizeof *r);
  for (size_t i = 0; i < 752; i++) bytes[i] = (unsigned char)(i * 7 + cpu * 31 + (i >> 5) + 1);
  // A number that is normal: bit 63 set, an exponent in the middle.
  for (int i = 0; i < 8; i++) {
    r->st[i][7] |= 0x80;
    r->st[i][8] = (unsigned char)(i + cpu);
    r->st[i][9] = 0x40;
    memset(&r->st[i][10], 0, 6);
  }
  r->mxcsr = 0x1f80 | 0x6000 | 0x8000;  // Rounds to zero, flushes to zero
  r->fcw = 0x0e7f;                      // Rounds to zero, 53 bits
}

// Whether the boot id could be read: a call of this may be in doubt, and ends then.
static int read_boot(char *id, size_t size) {
  FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
  if (file == NULL) return 0;
  int is_read = fgets(id, (int)size, file) != NULL;
  fclose(file);
  return is_read;
}

struct thread {
  pthread_t id;
  int cpu;
  struct registers in, out;
};

static void *run(void *argument) {
  struct thread *self = argument;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(self->cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) perror("sched_setaffinity"), exit(1);
  hold(&self->in, &self->out);
  return NULL;
}

static void compare(const struct thread *t) {
  const unsigned char *in = (const unsigned char *)&t->in, *out = (const unsigned char *)&t->out;
  for (size_t i = 0; i < sizeof(struct registers); i++)
    if (in[i] != out[i]) printf("CPU %d: byte %zu is %02x, was %02x\n", t->cpu, i, out[i], in[i]), exit(1);
}

int main(int argc, char **argv) {
  int cpus = argc > 1 ? atoi(argv[1]) : 1;
  char first[64] = "", now[64] = "";
  if (!read_boot(first, sizeof first)) perror("boot_id"), exit(1);
  struct thread *threads = calloc(cpus, sizeof *threads);
  for (int i = 0; i < cpus; i++) {
    threads[i].cpu = i;
    fill(&threads[i].in, i);
    if (pthread_create(&threads[i].id, NULL, run, &threads[i]) != 0) exit(1);
  }
  while (filled < cpus) usleep(10000);
  puts("ready");
  fflush(stdout);
  while (!read_boot(now, sizeof now) || strcmp(first, now) == 0) usleep(100000);
  go = 1;
  for (int i = 0; i < cpus; i++) pthread_join(threads[i].id, NULL);
  for (int i = 0; i < cpus; i++) compare(&threads[i]);
  puts("whole");
  return 0;
}
