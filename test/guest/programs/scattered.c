// Fills memory so that no two neighbouring pages are neighbours in physical memory, each page with words of its own, and says "ready". At
// SIGUSR1 it looks whether every word is what it was and says "whole", or which page is not.
// scattered MEBIBYTES FILE
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 4096, WORDS = PAGE / sizeof(uint64_t) };

static uint64_t word(size_t page, size_t i) { return (page * WORDS + i + 1) * 0x9e3779b97f4a7c15u; }

static void say(const char *path, const char *format, size_t number) {
  FILE *file = fopen(path, "a");
  if (file == NULL) exit(1);
  fprintf(file, format, number);
  if (fclose(file) != 0) exit(1);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  size_t pages = strtoul(argv[1], NULL, 10) * (1 << 20) / PAGE;
  uint64_t *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || madvise(memory, pages * PAGE, MADV_NOHUGEPAGE) != 0) return 1;
  for (size_t first = 0; first < 2; first++)
    for (size_t page = first; page < pages; page += 2)
      for (size_t i = 0; i < WORDS; i++) memory[page * WORDS + i] = word(page, i);
  sigset_t asked;
  sigemptyset(&asked);
  sigaddset(&asked, SIGUSR1);
  sigprocmask(SIG_BLOCK, &asked, NULL);
  say(argv[2], "ready\n", 0);
  for (int signal; sigwait(&asked, &signal) == 0;) {
    size_t page = 0;
    for (int whole = 1; whole && page < pages; page += (size_t)whole)
      for (size_t i = 0; i < WORDS; i++) whole &= memory[page * WORDS + i] == word(page, i);
    say(argv[2], page == pages ? "whole\n" : "page %zu is wrong\n", page);
  }
  return 1;
}
