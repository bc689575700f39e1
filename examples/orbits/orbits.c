/* SPDX-License-Identifier: Apache-2.0
 *
 * orbits: a long computation whose result is known.
 *
 * Some bodies attract each other; their paths are followed step by step (leapfrog) in floating point of 64 bits. The
 * system is chaotic: a single bit that is wrong in a register or in memory makes every digit of the result another one
 * soon afterwards. It makes no system call until it is done, so wherever its kernel dies, it computes.
 *
 *     orbits STEPS FILE [THREADS]
 *
 * Each thread follows bodies of its own. Writes a digest of all positions and velocities to the file: the same on every
 * machine with IEEE 754 arithmetic.
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODIES = 24, MOST_THREADS = 64 };

struct body {
  double position[3], velocity[3], mass;
};

struct system {
  struct body bodies[BODIES];
  long steps;
};

static struct system systems[MOST_THREADS];

/* Numbers between -1 and 1 that are the same everywhere. */
static double next_number(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (double)(int64_t)(*state >> 11) / (double)(INT64_C(1) << 52) - 1.0;
}

static void place(struct body *bodies, int number) {
  uint64_t state = 20081110 + (uint64_t)number;
  for (int i = 0; i < BODIES; i++) {
    for (int k = 0; k < 3; k++) {
      bodies[i].position[k] = next_number(&state);
      bodies[i].velocity[k] = next_number(&state) * 0.5;
    }
    bodies[i].mass = 1.0 / BODIES;
  }
}

static void accelerate(struct body *bodies, double time) {
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

static void step(struct body *bodies, double time) {
  accelerate(bodies, time / 2);
  for (int i = 0; i < BODIES; i++)
    for (int k = 0; k < 3; k++) bodies[i].position[k] += bodies[i].velocity[k] * time;
  accelerate(bodies, time / 2);
}

static void *follow(void *argument) {
  struct system *system = argument;
  for (long i = 0; i < system->steps; i++) step(system->bodies, 0.001);
  return NULL;
}

static uint64_t digest(uint64_t hash, const struct body *bodies) {
  for (int i = 0; i < BODIES; i++) {
    unsigned char bytes[6 * sizeof(double)];
    memcpy(bytes, bodies[i].position, 3 * sizeof(double));
    memcpy(bytes + 3 * sizeof(double), bodies[i].velocity, 3 * sizeof(double));
    for (size_t at = 0; at < sizeof bytes; at++) hash = (hash ^ bytes[at]) * UINT64_C(0x100000001b3);
  }
  return hash;
}

int main(int argc, char **argv) {
  long steps = argc >= 3 ? atol(argv[1]) : 0;
  int threads = argc == 4 ? atoi(argv[3]) : 1;
  if (steps <= 0 || argc > 4 || threads < 1 || threads > MOST_THREADS) {
    fputs("usage: orbits STEPS FILE [THREADS]\n", stderr);
    return 2;
  }
  pthread_t others[MOST_THREADS];
  for (int i = 0; i < threads; i++) {
    systems[i].steps = steps;
    place(systems[i].bodies, i);
    if (i > 0 && pthread_create(&others[i], NULL, follow, &systems[i]) != 0) {
      fputs("orbits: a thread cannot be made\n", stderr);
      return 1;
    }
  }
  follow(&systems[0]);
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (int i = 0; i < threads; i++) {
    if (i > 0) pthread_join(others[i], NULL);
    hash = digest(hash, systems[i].bodies);
  }
  FILE *file = fopen(argv[2], "w");
  if (file == NULL || fprintf(file, "%016llx\n", (unsigned long long)hash) < 0 || fclose(file) != 0) {
    perror(argv[2]);
    return 1;
  }
  return 0;
}
