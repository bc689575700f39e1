/* SPDX-License-Identifier: Apache-2.0
 * Sends a system management interrupt to the processor with the given APIC id, as firmware and chipsets do for reasons of their own.
 *     smi APIC_ID          (needs /dev/mem with iomem=relaxed) */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LOCAL_APIC 0xfee00000
#define COMMAND 0x300
#define COMMAND_DESTINATION 0x310
#define DELIVER_SMI (2 << 8)
#define ASSERT (1 << 14)

int main(int argc, char **argv) {
  int memory = open("/dev/mem", O_RDWR | O_SYNC);
  volatile uint32_t *apic;
  if (argc != 2 || memory < 0) return perror("smi: /dev/mem"), 1;
  apic = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, LOCAL_APIC);
  if (apic == MAP_FAILED) return perror("smi: the local APIC"), 1;
  apic[COMMAND_DESTINATION / 4] = (uint32_t)atoi(argv[1]) << 24;
  apic[COMMAND / 4] = ASSERT | DELIVER_SMI;
  return 0;
}
