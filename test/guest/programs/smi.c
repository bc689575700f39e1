/* SPDX-License-Identifier: Apache-2.0
 * Sends a system management interrupt to the processor with the given APIC id, as firmware and chipsets do for reasons of their own.
 *     smi APIC_ID          (needs iomem=relaxed and nox2apic) */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* arch/x86/include/asm/apicdef.h */
#define APIC_DEFAULT_PHYS_BASE 0xfee00000
#define APIC_ICR 0x300
#define APIC_ICR2 0x310
#define APIC_DM_SMI 0x200
#define APIC_INT_ASSERT 0x4000

int main(int argc, char **argv) {
  int memory = open("/dev/mem", O_RDWR | O_SYNC);
  volatile uint32_t *apic;
  if (argc != 2 || memory < 0) return perror("smi: /dev/mem"), 1;
  apic = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, APIC_DEFAULT_PHYS_BASE);
  if (apic == MAP_FAILED) return perror("smi: the local APIC"), 1;
  apic[APIC_ICR2 / 4] = (uint32_t)atoi(argv[1]) << 24;
  apic[APIC_ICR / 4] = APIC_INT_ASSERT | APIC_DM_SMI;
  return 0;
}
