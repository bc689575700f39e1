// Sets up everything that a process can have, then checks once in a while that it still has it, and writes a line to the file
// named by its argument: "ok COUNT" or "COUNT lost: WHAT". Children, timers and pending signals are part of it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what, condition) do { if (!(condition)) snprintf(lost, sizeof lost, "%s (line %d, errno %d)", what, __LINE__, errno); } while (0)
#define MUST(condition) do { if (!(condition)) { fprintf(stderr, "line %d: %s\n", __LINE__, strerror(errno)); exit(1); } } while (0)

static char lost[256];
static unsigned long count;
static char *anonymous, *huge, *guarded, *copied, *readonly;
static unsigned *shared;
static pid_t child, zombie, stopped;
static timer_t timer;
static volatile sig_atomic_t usr2, alarms;
static stack_t stack;
static int to_child[2], from_child[2], pair[2];
static pthread_t helpers[2];
static pid_t tids[2];
static __thread unsigned long tls = 0x1234;

static void on_signal(int signal, siginfo_t *info, void *context) {
  (void)context;
  if (signal == SIGUSR2) usr2 = info->si_value.sival_int;
  if (signal == SIGALRM) alarms++;
}

static void *helper(void *argument) {
  long n = (long)argument;
  char name[16];
  snprintf(name, sizeof name, "helper-%ld", n);
  prctl(PR_SET_NAME, name);
  tids[n] = gettid();
  tls = 0x5678 + n;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, 0);
  for (;;) {
    if (n == 0) pause();
    struct timespec delay = {0, 50000000};
    nanosleep(&delay, 0);
    if (tls != 0x5678 + (unsigned long)n) snprintf(lost, sizeof lost, "thread-local storage");
  }
  return 0;
}

static void write_file(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  MUST(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

// Answers each byte with its successor; also proves that memory written before fork and after it is right in both.
static void run_child(void) {
  memset(copied, 'c', 4096);
  prctl(PR_SET_PDEATHSIG, SIGHUP);
  char c;
  while (read(to_child[0], &c, 1) == 1) {
    c++;
    int signal = 0;
    if (copied[0] != 'c' || copied[8192] != 'p') c = '!';
    if (prctl(PR_GET_PDEATHSIG, &signal) != 0 || signal != SIGHUP) c = '?';
    if (write(from_child[1], &c, 1) != 1) break;
  }
  _exit(0);
}

static void boot_id(char *text) {
  int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
  MUST(fd >= 0 && read(fd, text, 36) == 36);
  close(fd);
}

// The flags of an area, as smaps has them. If the kernel dies meanwhile, what follows is written by the next one and need not fit.
static void area_flags(char *address, char *flags) {
  char line[512], start[32], before[36], after[36];
  snprintf(start, sizeof start, "%lx-", (unsigned long)address);
  do {
    int found = 0;
    flags[0] = 0;
    boot_id(before);
    FILE *smaps = fopen("/proc/self/smaps", "r");
    while (smaps && fgets(line, sizeof line, smaps)) {
      if (strncmp(line, start, strlen(start)) == 0) found = 1;
      if (found && sscanf(line, "VmFlags: %127[^\n]", flags) == 1) break;
    }
    if (smaps) fclose(smaps);
    boot_id(after);
  } while (memcmp(before, after, sizeof before) != 0);
}

// What no image of CRIU has a field for.
static void ask_the_kernel(void) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  MUST(sched_setaffinity(0, sizeof one, &one) == 0);
  MUST(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6) == 0);
  MUST(prctl(PR_SET_TIMERSLACK, 123456) == 0 && prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0);
  MUST(prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) == 0);
  unsigned long nodes = 1;
  MUST(syscall(SYS_set_mempolicy, 1, &nodes, 8) == 0);
  write_file("/proc/self/coredump_filter", "0x1f");
  write_file("/proc/self/autogroup", "7");
}

static void setup(const char *path) {
  (void)path;
  anonymous = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MUST(anonymous != MAP_FAILED);
  for (int i = 0; i < 256; i += 3) memset(anonymous + i * 4096, i, 4096);
  MUST(madvise(anonymous, 1 << 20, MADV_DONTDUMP) == 0 && mlock(anonymous, 8192) == 0);
  MUST(madvise(anonymous + (1 << 19), 4096, MADV_MERGEABLE) == 0);
  MUST(madvise(anonymous + (1 << 19) + 8192, 4096, MADV_WIPEONFORK) == 0);
  MUST(madvise(anonymous + (1 << 19) + 16384, 4096, MADV_DONTFORK) == 0);
  unsigned long nodes = 1;
  MUST(syscall(SYS_mbind, anonymous + (1 << 19) + 24576, 4096, 1, &nodes, 8, 0) == 0);
  MUST(syscall(SYS_mlock2, anonymous + (1 << 19) + 32768, 4096, 1) == 0);
  huge = mmap(0, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(madvise(huge, 8 << 20, MADV_HUGEPAGE) == 0);
  for (int i = 0; i < 8 << 20; i += 4096) memset(huge + i, i >> 12, 4096);
  guarded = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(guarded, 'g', 3 * 4096);
  MUST(mprotect(guarded + 4096, 4096, PROT_NONE) == 0);
  copied = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(copied, 'p', 4 * 4096);
  int fd = open("/proc/self/exe", O_RDONLY);
  readonly = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  MUST(readonly != MAP_FAILED);
  readonly[1] = 'X';
  MUST(mprotect(readonly, 8192, PROT_READ) == 0);
  close(fd);
  shared = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < 1 << 14; i++) shared[i] = i * 5;
  ask_the_kernel();
  MUST(pipe(to_child) == 0 && pipe(from_child) == 0);
  MUST((child = fork()) >= 0);
  if (child == 0) run_child();
  MUST((zombie = fork()) >= 0);
  if (zombie == 0) _exit(7);
  MUST((stopped = fork()) >= 0);
  if (stopped == 0) for (;;) pause();
  MUST(setpgid(stopped, stopped) == 0);
  MUST(kill(stopped, SIGSTOP) == 0 && waitpid(stopped, 0, WUNTRACED) == stopped);

  stack.ss_sp = malloc(65536);
  stack.ss_size = 65536;
  MUST(sigaltstack(&stack, 0) == 0);
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  sigaddset(&action.sa_mask, SIGHUP);
  MUST(sigaction(SIGUSR2, &action, 0) == 0 && sigaction(SIGALRM, &action, 0) == 0 && sigaction(SIGRTMIN + 3, &action, 0) == 0);
  signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  sigaddset(&set, SIGUSR1);
  MUST(pthread_sigmask(SIG_BLOCK, &set, 0) == 0);
  for (long n = 0; n < 2; n++) MUST(pthread_create(&helpers[n], 0, helper, (void *)n) == 0);
  while (tids[0] == 0 || tids[1] == 0) usleep(1000);
  union sigval value = {.sival_int = 4711};
  MUST(sigqueue(getpid(), SIGUSR2, value) == 0);
  MUST(syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1) == 0);
  struct itimerval interval = {{1000, 0}, {5000, 0}};
  MUST(setitimer(ITIMER_REAL, &interval, 0) == 0);
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = 99};
  MUST(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  struct itimerspec when = {{3000, 0}, {4000, 0}};
  MUST(timer_settime(timer, 0, &when, 0) == 0);
  MUST(setpriority(PRIO_PROCESS, 0, 5) == 0);
  struct rlimit limit = {100, 200};
  MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  umask(027);
  MUST(chdir("/usr") == 0);
  prctl(PR_SET_NAME, "state-of-things");
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  write_file("/proc/self/oom_score_adj", "123");
  if (getuid() == 0) {
    gid_t groups[] = {4, 100, 1000};
    MUST(setgroups(3, groups) == 0 && prctl(PR_SET_KEEPCAPS, 1) == 0);
    MUST(setresgid(1000, 1000, 1000) == 0 && setresuid(1000, 1000, 1000) == 0);
  }
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
}

static void check_memory(void) {
  for (int i = 0; i < 256; i++) CHECK("anonymous memory", anonymous[i * 4096 + 7] == (i % 3 == 0 ? (char)i : 0));
  for (int i = 0; i < 8 << 20; i += 4096) CHECK("huge pages", huge[i + 9] == (char)(i >> 12));
  CHECK("memory around a guard page", guarded[0] == 'g' && guarded[8192] == 'g');
  CHECK("copied memory", copied[0] == 'p');
  CHECK("changed page of a file", readonly[0] == 0x7f && readonly[1] == 'X' && readonly[2] == 'L');
  for (int i = 0; i < 1 << 14; i++) CHECK("shared memory", shared[i] == (unsigned)i * 5);
}

static void check_signals(void) {
  sigset_t set;
  CHECK("signal mask", pthread_sigmask(SIG_BLOCK, 0, &set) == 0 && sigismember(&set, SIGUSR2) && !sigismember(&set, SIGTERM));
  CHECK("pending signals", sigpending(&set) == 0 && sigismember(&set, SIGUSR2) && sigismember(&set, SIGUSR1));
  struct sigaction action;
  CHECK("handler", sigaction(SIGUSR2, 0, &action) == 0 && action.sa_sigaction == on_signal && sigismember(&action.sa_mask, SIGHUP));
  CHECK("ignored signal", sigaction(SIGPIPE, 0, &action) == 0 && action.sa_handler == SIG_IGN);
  stack_t now;
  CHECK("alternate stack", sigaltstack(0, &now) == 0 && now.ss_sp == stack.ss_sp && now.ss_size == 65536);
  struct itimerval interval;
  CHECK("interval timer", getitimer(ITIMER_REAL, &interval) == 0 && interval.it_interval.tv_sec == 1000 && interval.it_value.tv_sec > 1000 && interval.it_value.tv_sec < 5000);
  struct itimerspec when;
  CHECK("POSIX timer", timer_gettime(timer, &when) == 0 && when.it_interval.tv_sec == 3000 && when.it_value.tv_sec > 1000 && when.it_value.tv_sec < 4000);
}

static void check_identity(void) {
  struct rlimit limit;
  char text[64] = "";
  CHECK("niceness", getpriority(PRIO_PROCESS, 0) == 5);
  CHECK("limit", getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == 100 && limit.rlim_max == 200);
  mode_t mask = umask(027);
  CHECK("umask", mask == 027);
  CHECK("working directory", getcwd(text, sizeof text) && strcmp(text, "/usr") == 0);
  prctl(PR_GET_NAME, text);
  CHECK("name", strcmp(text, "state-of-things") == 0);
  int subreaper = 0;
  CHECK("subreaper", prctl(PR_GET_CHILD_SUBREAPER, &subreaper) == 0 && subreaper == 1);
  gid_t groups[8];
  CHECK("users and groups", getuid() == 1000 && getegid() == 1000 && getgroups(8, groups) == 3 && groups[0] == 4);
  int fd = open("/proc/self/oom_score_adj", O_RDONLY);
  memset(text, 0, sizeof text);
  CHECK("oom_score_adj", read(fd, text, 20) > 0 && atoi(text) == 123);
  close(fd);
  struct stat status;
  CHECK("owner of a socket", fstat(pair[0], &status) == 0 && status.st_uid == 1000 && status.st_gid == 1000);
  CHECK("session", getsid(0) == getpid() && getpgid(0) == getpid());
}

static void check_settings(void) {
  cpu_set_t cpus;
  CHECK("CPU affinity", sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1 && CPU_ISSET(0, &cpus));
  CHECK("I/O priority", syscall(SYS_ioprio_get, 1, 0) == (2 << 13 | 6));
  CHECK("timer slack", prctl(PR_GET_TIMERSLACK) == 123456);
  char text[32] = "", flags[128];
  int fd = open("/proc/self/coredump_filter", O_RDONLY);
  CHECK("coredump_filter", read(fd, text, 31) > 0 && strtol(text, 0, 16) == 0x1f);
  close(fd);
  static const char *const expected[] = {"mg", "wf", "dc"};
  for (int i = 0; i < 3; i++) {
    area_flags(anonymous + (1 << 19) + i * 8192, flags);
    CHECK(expected[i], strstr(flags, expected[i]) && strstr(flags, "dd"));
  }
  // Older kernels have no letters for "page by page".
  area_flags(anonymous + (1 << 19) + 32768, flags);
  CHECK("locked page by page", strstr(flags, "lo") && (strstr(flags, "lf") || strstr(flags, "??")));
}

static void check_children(void) {
  char c = 'a' + count % 20, answer = 0;
  CHECK("pipe to the child", write(to_child[1], &c, 1) == 1 && read(from_child[0], &answer, 1) == 1 && answer == c + 1);
  siginfo_t info = {0};
  CHECK("zombie", waitid(P_PID, zombie, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid == zombie && info.si_status == 7);
  char path[64], line[512] = "";
  snprintf(path, sizeof path, "/proc/%d/stat", stopped);
  int fd = open(path, O_RDONLY);
  CHECK("stopped child", read(fd, line, sizeof line - 1) > 0 && strstr(line, ") T ") != 0);
  close(fd);
  CHECK("process group of the child", getpgid(stopped) == stopped && getsid(stopped) == getpid());
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  int out = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0666);
  MUST(out >= 0);
  setsid();
  setup(argv[1]);
  for (;;) {
    count++;
    check_memory();
    check_signals();
    check_identity();
    check_settings();
    check_children();
    CHECK("thread-local storage", tls == 0x1234);
    char line[300];
    int n = lost[0] ? snprintf(line, sizeof line, "%lu lost: %s\n", count, lost) : snprintf(line, sizeof line, "ok %lu\n", count);
    if (write(out, line, n) != n) return 3;
    struct timespec delay = {0, 300000000};
    nanosleep(&delay, 0);
  }
}
