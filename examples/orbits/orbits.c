/* SPDX-License-Identifier: Apache-2.0
 *
 * orbits: a long computation whose result is known.
 *
 * Some bodies attract each other; their paths are followed step by step (leapfrog) in floating point of 64 bits. The
 * system is chaotic: a single bit that is wrong in a register or in memory makes every digit of the result another one
 * soon afterwards. It makes no system call until it is done, so wherever its kernel dies, it computes.
 *
 *     orbits STEPS FILE
 *
 * Writes a digest of all positions and velocities to the file. The same on every machine with IEEE 754 arithmetic.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODIES = 24 };

struct body {
  double position[3], velocity[3], mass;
};

static struct body bodies[BODIES];

/* Numbers between -1 and 1 that are the same everywhere. */
static double next_number(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (double)(int64_t)(*state >> 11) / (double)(INT64_C(1) << 52) - 1.0;
}

static void place(void) {
  uint64_t state = 20081110;
  for (int i = 0; i < BODIES; i++) {
    for (int k = 0; k < 3; k++) {
      bodies[i].position[k] = next_number(&state);
      bodies[i].velocity[k] = next_number(&state) * 0.5;
    }
    bodies[i].mass = 1.0 / BODIES;
  }
}

static void accelerate(double time) {
  for (int i = 0; i < BODIES; i++) {
    double sum[3] = {0, 0, 0};
    for (int j = 0; j < BODIES; j++) {
      double d[3], square = 0.01; /* softened: no two bodies come too close */
      for (int k = 0; k < 3; k++) {
        d[k] = bodies[j].position[k] - bodies[i].position[k];
        square += d[k] * d[k];
      }
      double pull = bodies[j].mass / (square * sqrt(square));
      for (int k = 0; k < 3; k++) sum[k] += d[k] * pull;
    }
    for (int k = 0; k < 3; k++) bodies[i].velocity[k] += sum[k] * time;
  }
}

static void step(double time) {
  accelerate(time / 2);
  for (int i = 0; i < BODIES; i++)
    for (int k = 0; k < 3; k++) bodies[i].position[k] += bodies[i].velocity[k] * time;
  accelerate(time / 2);
}

static uint64_t digest(void) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (int i = 0; i < BODIES; i++) {
    unsigned char bytes[6 * sizeof(double)];
    memcpy(bytes, bodies[i].position, 3 * sizeof(double));
    memcpy(bytes + 3 * sizeof(double), bodies[i].velocity, 3 * sizeof(double));
    for (size_t at = 0; at < sizeof bytes; at++) hash = (hash ^ bytes[at]) * UINT64_C(0x100000001b3);
  }
  return hash;
}

int main(int argc, char **argv) {
  long steps = argc == 3 ? atol(argv[1]) : 0;
  if (steps <= 0) {
    fputs("usage: orbits STEPS FILE\n", stderr);
    return 2;
  }
  place();
  for (long i = 0; i < steps; i++) step(0.001);
  FILE *file = fopen(argv[2], "w");
  if (file == NULL || fprintf(file, "%016llx\n", (unsigned long long)digest()) < 0 || fclose(file) != 0) {
    perror(argv[2]);
    return 1;
  }
  return 0;
}
