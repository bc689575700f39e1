// Runs the machine code of `checksum` on buffers. argv: file of the code, offset of `checksum` in it. Standard
// input: for each buffer its length in 8 bytes and its content. Standard output: 8 bytes for each.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
  if (argc != 3)
    return 2;
  int fd = open(argv[1], O_RDONLY);
  char *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  if (code == MAP_FAILED)
    return 3;
  char *entry = code + strtoul(argv[2], NULL, 10);
  uint64_t length;
  while (fread(&length, sizeof length, 1, stdin) == 1) {
    char *bytes = malloc(length + 1);
    if (bytes == NULL || fread(bytes, 1, length, stdin) != length)
      return 4;
    char *at = bytes;
    uint64_t left = length, sum, clobbered = 0;
    // RBX, RDX, RDI and R8 to R10 must be as before: the code around it relies on that.
    __asm__ volatile("mov $0x55, %%edx\n\tmov $0x66, %%edi\n\tmov $0x77, %%r8d\n\tmov $0x88, %%r9d\n\t"
                     "mov $0x99, %%r10d\n\tmov $0xaa, %%r12d\n\tlea 1f(%%rip), %%r13\n\tjmp *%[entry]\n"
                     "1:\tcmp $0x55, %%edx\n\tjne 2f\n\tcmp $0x66, %%edi\n\tjne 2f\n\tcmp $0x77, %%r8d\n\tjne 2f\n\t"
                     "cmp $0x88, %%r9d\n\tjne 2f\n\tcmp $0x99, %%r10d\n\tjne 2f\n\tcmp $0xaa, %%r12d\n\tje 3f\n"
                     "2:\tmov $1, %[clobbered]\n3:"
                     : "=&a"(sum), "+c"(left), "+S"(at), [clobbered] "+r"(clobbered)
                     : [entry] "b"(entry)
                     : "rdx", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "memory", "cc");
    if (clobbered != 0)
      return 5;
    fwrite(&sum, sizeof sum, 1, stdout);
    free(bytes);
  }
  return 0;
}
