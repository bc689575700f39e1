// Parks a thread in each of some system calls of which the kernel knows more than it shows, says "ready", and at SIGHUP lets them all
// go on and says what each of them got. The results go to the file named by its argument.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MUST(condition) do { if (!(condition)) { fprintf(stderr, "line %d: %s\n", __LINE__, strerror(errno)); exit(1); } } while (0)

#define SET_KEY 0x4f5a0001

enum { SUSPENDED, SENDING, READING, SLEEPING, SERVED, THREADS };
static pthread_t threads[THREADS];
static int out, sender, receiver, master, terminal, queued, freed, kept, set;
static volatile int other_rights = -1;
static void *guarded;

static void say(const char *format, ...) {
  char line[200];
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  MUST(write(out, line, n) == n);
}

static void on_signal(int signal) { (void)signal; }

// Its own mask blocks SIGUSR1 and SIGTERM; while it waits only SIGUSR2 is blocked.
static void *suspended(void *argument) {
  prctl(PR_SET_NAME, "suspended");
  sigset_t own, meanwhile;
  sigemptyset(&own);
  sigaddset(&own, SIGUSR1);
  sigaddset(&own, SIGTERM);
  sigaddset(&own, SIGHUP);
  sigemptyset(&meanwhile);
  sigaddset(&meanwhile, SIGUSR2);
  sigaddset(&meanwhile, SIGHUP);
  MUST(pthread_sigmask(SIG_SETMASK, &own, 0) == 0);
  sigsuspend(&meanwhile);
  MUST(pthread_sigmask(SIG_SETMASK, 0, &own) == 0);
  say("sigsuspend: errno %d, USR1 %d, TERM %d, USR2 %d\n", errno, sigismember(&own, SIGUSR1), sigismember(&own, SIGTERM), sigismember(&own, SIGUSR2));
  return argument;
}

static void *sending(void *argument) {
  prctl(PR_SET_NAME, "sending");
  if (freed >= 0) MUST(pkey_set(kept, PKEY_DISABLE_ACCESS) == 0);
  ssize_t n = send(sender, "last", 4, 0);
  if (freed >= 0) other_rights = pkey_get(kept);
  say("send: %zd\n", n);
  return argument;
}

// The kernel has taken two bytes from the terminal already when it goes on waiting for the other two.
static void *reading(void *argument) {
  prctl(PR_SET_NAME, "reading");
  char bytes[16];
  ssize_t n = read(terminal, bytes, sizeof bytes);
  say("read: %zd, errno %d\n", n, n < 0 ? errno : 0);
  return argument;
}

// Ahead of every ordinary thread, on the last CPU only: whoever is ahead of it there keeps it from seeing what it waits for.
static void run_on_last_cpu(void) {
  cpu_set_t last;
  CPU_ZERO(&last);
  CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &last);
  struct sched_param first = {.sched_priority = 1};
  MUST(sched_setaffinity(0, sizeof last, &last) == 0 && sched_setscheduler(0, SCHED_FIFO, &first) == 0);
}

static void *sleeping(void *argument) {
  prctl(PR_SET_NAME, "sleeping");
  run_on_last_cpu();
  // Long enough for somebody to get ahead before it is over, on a host that is busy too.
  struct timespec delay = {20, 0};
  int result = nanosleep(&delay, 0);
  say("nanosleep: %d\n", result);
  return argument;
}

// Whoever raises the semaphore lowers it again for this one.
static void *served(void *argument) {
  prctl(PR_SET_NAME, "served");
  run_on_last_cpu();
  struct sembuf take = {0, -1, 0};
  // C libraries choose between this call and semtimedop.
  int result = syscall(SYS_semop, set, &take, 1);
  say("semop: %d, left %d\n", result, semctl(set, 0, GETVAL));
  return argument;
}

// Two memory protection keys, of which the first is free again and the second is on a page; none where the processor has none.
static void allocate_keys(void) {
  freed = pkey_alloc(0, 0);
  if (freed < 0) return;
  MUST((kept = pkey_alloc(0, PKEY_DISABLE_WRITE)) > freed && pkey_free(freed) == 0);
  guarded = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(guarded != MAP_FAILED && pkey_mprotect(guarded, 4096, PROT_READ | PROT_WRITE, kept) == 0);
}

// What the kernel says of the area that begins at an address; empty if it says nothing of that kind.
static const char *said_of(void *address, const char *kind) {
  static char line[256];
  char begin[32], *words = 0;
  int inside = 0;
  snprintf(begin, sizeof begin, "%lx-", (unsigned long)address);
  FILE *maps = fopen("/proc/self/smaps", "r");
  MUST(maps);
  while (!words && fgets(line, sizeof line, maps)) {
    if (strncmp(line, begin, strlen(begin)) == 0) inside = 1;
    if (inside && strncmp(line, kind, strlen(kind)) == 0) words = line + strlen(kind);
  }
  fclose(maps);
  return words ? words : "";
}

static int key_at(void *address) {
  int key = -1;
  sscanf(said_of(address, "ProtectionKey:"), "%d", &key);
  return key;
}

// Memory that is mapped now is locked, and is not there before it is used: two pages, so that a read of the one brings not the other.
static void look_at_new_memory(void) {
  char *memory = mmap(0, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(memory != MAP_FAILED);
  memory[0] = 1;
  int is_locked = strstr(said_of(memory, "VmFlags:"), " lo") != 0, resident = atoi(said_of(memory, "Rss:"));
  say("new memory: locked %d, resident %d kB\n", is_locked, resident);
}

static void look_at_keys(void) {
  if (freed < 0) {
    say("keys: none\n");
    return;
  }
  say("keys: on its page %d, rights %d, of another thread %d, next is the free one %d\n", key_at(guarded) == kept, pkey_get(kept),
      other_rights, pkey_alloc(0, 0) == freed);
}

static void setup(void) {
  allocate_keys();
  MUST((set = semget(SET_KEY, 1, IPC_CREAT | IPC_EXCL | 0600)) >= 0);
  struct sigaction action = {.sa_handler = on_signal};
  MUST(sigaction(SIGUSR1, &action, 0) == 0);
  struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0otherworld-parked"};
  MUST((receiver = socket(AF_UNIX, SOCK_DGRAM, 0)) >= 0 && (sender = socket(AF_UNIX, SOCK_DGRAM, 0)) >= 0);
  MUST(bind(receiver, (struct sockaddr *)&name, sizeof(sa_family_t) + 18) == 0);
  MUST(connect(sender, (struct sockaddr *)&name, sizeof(sa_family_t) + 18) == 0);
  while (send(sender, &queued, sizeof queued, MSG_DONTWAIT) == sizeof queued) queued++;
  MUST(errno == EAGAIN && queued > 1);
  MUST((master = posix_openpt(O_RDWR | O_NOCTTY)) >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
  MUST((terminal = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
  struct termios raw;
  MUST(tcgetattr(terminal, &raw) == 0);
  cfmakeraw(&raw);
  raw.c_cc[VMIN] = 4;
  MUST(tcsetattr(terminal, TCSANOW, &raw) == 0);
}

static void release(void) {
  pthread_kill(threads[SUSPENDED], SIGUSR1);
  int inOrder = 1;
  for (int i = 0; i < queued; i++) {
    int number = -1;
    if (recv(receiver, &number, sizeof number, 0) != sizeof number || number != i) inOrder = 0;
  }
  char text[8] = "";
  ssize_t n = recv(receiver, text, sizeof text, 0);
  pthread_join(threads[SENDING], 0);
  ssize_t more = recv(receiver, text + 4, 4, MSG_DONTWAIT);
  say("received: in order %d, %zd %.4s, more %zd\n", inOrder, n, text, more);
  MUST(write(master, "cdef", 4) == 4);
  for (int i = 0; i < THREADS; i++) if (i != SENDING) pthread_join(threads[i], 0);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  MUST((out = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0666)) >= 0);
  sigset_t hangup;
  sigemptyset(&hangup);
  sigaddset(&hangup, SIGHUP);
  MUST(pthread_sigmask(SIG_BLOCK, &hangup, 0) == 0);
  setup();
  void *(*const bodies[THREADS])(void *) = {suspended, sending, reading, sleeping, served};
  for (int i = 0; i < THREADS; i++) MUST(pthread_create(&threads[i], 0, bodies[i], 0) == 0);
  sleep(1);
  MUST(write(master, "ab", 2) == 2);
  sleep(1);
  MUST(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
  say("ready\n");
  int signal;
  MUST(sigwait(&hangup, &signal) == 0);
  release();
  look_at_keys();
  look_at_new_memory();
  say("done\n");
  return 0;
}
