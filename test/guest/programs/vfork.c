// vfork NAME [compute]: three threads wait in vfork, each for a child that has not executed a program yet. What became of them goes to
// the file NAME. The children go on when there is a NAME.go, and a writer of NAME.fifo. The first one naps until then, or computes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MUST(condition) do { if (!(condition)) { fprintf(stderr, "line %d: %s\n", __LINE__, strerror(errno)); exit(1); } } while (0)

extern char **environ;
static char go[100], fifo[100], copy[100];
static volatile int written;
static int computes;
static FILE *out;

static int status_of(pid_t pid) {
  int status = -1;
  MUST(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -status;
}

// The child is in code of its own, on the stack of this thread.
static void *napping(void *argument) {
  prctl(PR_SET_NAME, "napping");
  volatile long below[64];
  for (int i = 0; i < 64; i++) below[i] = i * 3;
  pid_t pid = vfork();
  if (pid == 0) {
    struct timespec nap = { 0, 50000000 };
    written = 1;
    while (access(go, F_OK) != 0) {
      if (computes) for (volatile int i = 0; i < 50000000; i++) continue;
      else nanosleep(&nap, NULL);
    }
    written = 2;
    execl("/bin/sh", "sh", "-c", "exit 7", NULL);
    _exit(1);
  }
  int status = status_of(pid), whole = 1;
  for (int i = 0; i < 64; i++) whole &= below[i] == i * 3;
  fprintf(out, "vfork: status %d, written %d, stack %s\n", status, written, whole ? "whole" : "damaged");
  return argument;
}

// The child is in a call of the C library's, on a stack of its own, with all signals blocked.
static void spawn(const char *name, char *program) {
  prctl(PR_SET_NAME, name);
  posix_spawn_file_actions_t actions;
  MUST(posix_spawn_file_actions_init(&actions) == 0);
  MUST(posix_spawn_file_actions_addopen(&actions, 0, fifo, O_RDONLY, 0) == 0);
  MUST(posix_spawn_file_actions_addopen(&actions, 1, copy, O_WRONLY | O_CREAT | O_APPEND, 0600) == 0);
  pid_t pid = 0;
  char *arguments[] = { program, NULL };
  int error = posix_spawn(&pid, program, &actions, NULL, arguments, environ);
  int status = error == 0 ? status_of(pid) : -1;
  fprintf(out, "%s: error %d, status %d\n", name, error, status);
}

static void *spawning(void *argument) {
  spawn("spawn", "/bin/cat");
  return argument;
}

static void *failing(void *argument) {
  spawn("missing", "/nowhere/program");
  return argument;
}

int main(int argc, char **argv) {
  MUST(argc >= 2);
  computes = argc > 2;
  snprintf(go, sizeof go, "%s.go", argv[1]);
  snprintf(fifo, sizeof fifo, "%s.fifo", argv[1]);
  snprintf(copy, sizeof copy, "%s.copy", argv[1]);
  MUST(mkfifo(fifo, 0600) == 0 && (out = fopen(argv[1], "w")) != NULL);
  void *(*bodies[])(void *) = { napping, spawning, failing };
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) MUST(pthread_create(&threads[i], NULL, bodies[i], NULL) == 0);
  for (int i = 0; i < 3; i++) MUST(pthread_join(threads[i], NULL) == 0);
  fputs("done\n", out);
  fclose(out);
  return 0;
}
