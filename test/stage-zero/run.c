// Runs stage zero as a process: its area lies at the virtual address that is its physical one, and what only a
// kernel may do is done in the handler of the fault. Other processors answer by what is written into their slots.
//
// argv: file of the area, its address, bytes of it, address of low memory, address of the kernel's text (or 0), value
// of IA32_APIC_BASE, the file to write the area to, and how it goes: `s`, no processor answers, or `n`, an exception
// by the gate at the offset GATE, or `b`, the same while the text is put back. ENTRY is the offset of what runs, CR4 the register's value at the beginning.
// Standard output: a line for each thing that was done.
//
// With `ids` alone: the APIC ids of the processors that it may run on, as CPUID gives them to a process. Where a
// hypervisor leaves CPUID to the hardware, they are not those of /proc/cpuinfo.
#define _GNU_SOURCE
#include <cpuid.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

// As in stage-zero.S.
enum { CPUS = 0x38, TABLE = 0x30, STATE = 0x70, SLOT = 8, SAVED = 2, LOW_TAKEN = 0x30, TEXT_TAKEN = 0x40 };

static uint64_t area, low, text, apic_base, cr3 = 0x1a2b000, cr4;
static char *kernel;
static sigjmp_buf ended;
static int answers = 1, fault_at_start, fault_at_return;
static uint32_t icr_high;

static uint64_t word(uint64_t address) { return *(volatile uint64_t *)address; }
static uint64_t constant(int symbol) { return word(area + 0x1000 + symbol); }

// What the processors do that an interrupt is for.
static void sent(uint32_t command, uint32_t apic_id)
{
  int taken = (int)*(uint32_t *)(constant(STATE) + (command == 0x4200 ? TEXT_TAKEN : LOW_TAKEN));
  printf("send %x to %u%s\n", command, apic_id, taken ? "" : " too early");
  if (fault_at_return && command == 0x4200)
    mprotect((void *)(text & ~0xfffull), 0x2000, PROT_READ);
  if (!answers || (command >> 8 != 0x46 && command != 0x4200))
    return;
  for (uint64_t i = 0; i < constant(CPUS); i++) {
    uint64_t entry = constant(TABLE) + i * 16;
    if (*(uint32_t *)entry == apic_id)
      *(uint32_t *)word(entry + SLOT) = SAVED;
  }
  if (memcmp((void *)low, "low memory", 10) == 0 && command >> 8 == 0x46)
    printf("its code is not there\n");
}

static void set_low(greg_t *registers, int name, uint64_t value)
{
  registers[name] = (greg_t)(value & 0xffffffff);
}

static void report_end(greg_t *g)
{
  int zeros = (g[REG_RBX] | g[REG_RCX] | g[REG_RDX] | g[REG_RDI] | g[REG_RBP] | g[REG_R8] | g[REG_R9] | g[REG_R10] |
               g[REG_R11] | g[REG_R12] | g[REG_R13] | g[REG_R14] | g[REG_R15]) == 0;
  printf("kernel rsi=%llx zeros=%d cr3=%lx cr4=%lx\n", g[REG_RSI], zeros, cr3, cr4);
}

// As an NMI would come in by the gate: three words, and its number.
static void by_gate(greg_t *g)
{
  g[REG_RSP] -= 8 * 6;
  *(uint64_t *)g[REG_RSP] = (uint64_t)g[REG_RIP];
  g[REG_RIP] = (greg_t)strtoull(getenv("GATE"), NULL, 10) + (greg_t)area;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
  greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
  uint8_t *ip = (uint8_t *)g[REG_RIP];
  if (fault_at_return && (uint64_t)info->si_addr >> 12 == text >> 12) { // In the middle of the copy.
    mprotect((void *)(text & ~0xfffull), 0x2000, PROT_READ | PROT_WRITE | PROT_EXEC);
    by_gate(g);
    fault_at_return = 0;
    return;
  }
  if ((char *)ip == kernel) {
    report_end(g);
    siglongjmp(ended, 1);
  }
  if (number == SIGILL) {
    printf("reset\n");
    siglongjmp(ended, 1);
  }
  if (ip[0] == 0xf4) { // HLT
    printf("parked cr4=%lx\n", cr4);
    siglongjmp(ended, 1);
  }
  if (ip[0] == 0xfa) { // CLI
    g[REG_RIP] += 1;
  } else if (ip[0] == 0x0f && ip[1] == 0x20) { // MOV from CR
    g[REG_RAX] = (greg_t)(ip[2] == 0xd8 ? cr3 : cr4);
    g[REG_RIP] += 3;
  } else if (ip[0] == 0x0f && ip[1] == 0x22) { // MOV to CR: CR3 from RDX or RAX, CR4 from RAX
    if (ip[2] == 0xe0)
      cr4 = (uint64_t)g[REG_RAX];
    else
      cr3 = (uint64_t)g[ip[2] == 0xda ? REG_RDX : REG_RAX];
    if (fault_at_start && ip[2] == 0xda) {
      by_gate(g);
      fault_at_start = 0;
      return;
    }
    g[REG_RIP] += 3;
  } else if (ip[0] == 0x0f && ip[1] == 0x01) { // LIDT no_idt(%rip)
    g[REG_RIP] += 7;
  } else if (ip[0] == 0x41 && ip[1] == 0x0f && ip[2] == 0x01) { // LGDT and LIDT N(%r15)
    g[REG_RIP] += 8;
  } else if (ip[0] == 0x8e) { // MOV to a segment register
    g[REG_RIP] += 2;
  } else if (ip[0] == 0x48 && ip[1] == 0xcb) { // LRETQ
    g[REG_RIP] = (greg_t)word((uint64_t)g[REG_RSP]);
    g[REG_RSP] += 16;
  } else if (ip[0] == 0x0f && ip[1] == 0x32) { // RDMSR
    uint64_t value = (uint32_t)g[REG_RCX] == 0x1b ? apic_base : 0x7fff12345000;
    set_low(g, REG_RAX, value);
    set_low(g, REG_RDX, value >> 32);
    g[REG_RIP] += 2;
  } else if (ip[0] == 0x0f && ip[1] == 0x30) { // WRMSR
    sent((uint32_t)g[REG_RAX], (uint32_t)g[REG_RDX]);
    g[REG_RIP] += 2;
  } else if (ip[0] == 0x41 && ip[1] == 0x89 && ip[2] == 0x81) { // MOV EAX to the APIC's page, by R9: ICR_HIGH
    icr_high = (uint32_t)g[REG_RAX];
    g[REG_RIP] += 7;
  } else if (ip[0] == 0x45 && ip[1] == 0x89 && ip[2] == 0x81) { // MOV R8D: ICR_LOW
    sent((uint32_t)g[REG_R8], icr_high >> 24);
    g[REG_RIP] += 7;
  } else if (ip[0] == 0x41 && ip[1] == 0x8b && ip[2] == 0x81) { // MOV from ICR_LOW: sent
    set_low(g, REG_RAX, 0);
    g[REG_RIP] += 7;
  } else {
    printf("fault at %lx: %02x %02x %02x\n", (uint64_t)ip - area, ip[0], ip[1], ip[2]);
    siglongjmp(ended, 1);
  }
}

static char *put(uint64_t address, size_t bytes)
{
  char *at = mmap((void *)address, bytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (at != (char *)address)
    exit(3);
  return at;
}

static uint32_t own_id(void)
{
  uint32_t a, b, c, d;
  if (__get_cpuid_count(0xb, 0, &a, &b, &c, &d) && b != 0)
    return d;
  __cpuid(1, a, b, c, d);
  return b >> 24;
}

static int print_ids(void)
{
  cpu_set_t all, one;
  if (sched_getaffinity(0, sizeof all, &all) != 0)
    return 6;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &all))
      continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
      return 6;
    printf("%u\n", own_id());
  }
  return 0;
}

int main(int argc, char **argv)
{
  if (argc == 2 && strcmp(argv[1], "ids") == 0)
    return print_ids();
  if (argc != 9)
    return 2;
  uint64_t n[9];
  for (int i = 2; i < 7; i++)
    n[i] = strtoull(argv[i], NULL, 0);
  area = n[2], low = n[4], text = n[5], apic_base = n[6];
  cr4 = strtoull(getenv("CR4"), NULL, 0);
  answers = strchr(argv[8], 's') == NULL;
  fault_at_start = strchr(argv[8], 'n') != NULL;
  fault_at_return = strchr(argv[8], 'b') != NULL;
  char *bytes = put(area, n[3]);
  int fd = open(argv[1], O_RDONLY);
  if (read(fd, bytes, n[3]) != (ssize_t)n[3])
    return 4;
  strcpy(put(low, 0x4000), "low memory");
  if (text != 0)
    strcpy(put(text & ~0xfffull, 0x2000) + (text & 0xfff), "\xf4\xc3text");
  kernel = put(*(uint64_t *)(bytes + 0x2000) & ~0xfffull, 0x1000) + (*(uint64_t *)(bytes + 0x2000) & 0xfff);
  *kernel = (char)0xfa;
  stack_t stack = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };
  sigaltstack(&stack, NULL);
  struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGILL, &action, NULL);
  if (sigsetjmp(ended, 1) == 0) {
    char *entry = bytes + strtoul(getenv("ENTRY"), NULL, 10);
    __asm__ volatile("movq %1, %%xmm15\n\tjmp *%0" : : "r"(entry), "r"(0x1122334455667788) : "memory");
    __builtin_unreachable();
  }
  if (strcmp((char *)low, "low memory") != 0)
    printf("low memory is not as it was\n");
  if (text != 0 && strcmp((char *)text, "\xf4\xc3text") != 0)
    printf("text is not as it was\n");
  fd = open(argv[7], O_WRONLY | O_CREAT | O_TRUNC, 0600);
  return write(fd, bytes, n[3]) == (ssize_t)n[3] ? 0 : 5;
}
