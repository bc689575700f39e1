// Has timers, pending signals, stopped children and a FIFO in many states, and when the file named by its first argument with
// ".go" is there, writes to that file what has become of each: what a process that never left writes, too. With a second argument
// all of its stopped children were reported to it, and no SIGCHLD is pending.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MUST(condition) do { if (!(condition)) { fprintf(stderr, "line %d: %s\n", __LINE__, strerror(errno)); exit(1); } } while (0)

enum { NEVER_SET, FIRED, FIRED_READ, DISARMED, FUTURE, PERIODIC_UNREAD, KINDS };
static const char *const kinds[] = {"never set", "fired", "fired and read", "disarmed", "future", "periodic, unread"};
static const int clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME};
static int timers[3][2][KINDS], cancelled;
static timer_t silent, silent_periodic, computing, disarmed;
// Seconds of CPU time: more than the first thread takes until it is asked.
enum { CPU_SECONDS = 5 };
static pid_t reported, unreported;
static int fifo, poller, quiet;
static char fifo_path[128], go_path[128];
static FILE *out;
static pthread_barrier_t ready;

static struct itimerspec in(int clock, int absolute, double seconds, double interval) {
  struct timespec now = {0, 0};
  if (absolute) clock_gettime(clock, &now);
  double fraction = seconds - (long)seconds;
  struct itimerspec value = {{(time_t)interval, (long)((interval - (long)interval) * 1e9)}, {now.tv_sec + (time_t)seconds, now.tv_nsec + (long)(fraction * 1e9)}};
  if (value.it_value.tv_nsec >= 1000000000) value.it_value.tv_sec++, value.it_value.tv_nsec -= 1000000000;
  return value;
}

static int set_timer(int clock, int absolute, int kind) {
  int fd = timerfd_create(clock, TFD_NONBLOCK);
  MUST(fd >= 0);
  if (kind == NEVER_SET) return fd;
  struct itimerspec value = in(clock, absolute, kind == FUTURE ? 100000 : 0.1, kind == PERIODIC_UNREAD ? 0.1 : 0), none = {0};
  MUST(timerfd_settime(fd, absolute ? TFD_TIMER_ABSTIME : 0, &value, 0) == 0);
  if (kind == DISARMED) MUST(timerfd_settime(fd, absolute ? TFD_TIMER_ABSTIME : 0, &none, 0) == 0);
  struct pollfd wait = {fd, POLLIN, 0};
  uint64_t count;
  if (kind == FIRED || kind == FIRED_READ || kind == PERIODIC_UNREAD) MUST(poll(&wait, 1, 10000) == 1);
  if (kind == FIRED_READ) MUST(read(fd, &count, 8) == 8);
  return fd;
}

// On the CPU time of this thread, and for it alone: one that is to go off, and one that is disarmed with its interval as it was.
static void set_cpu_timers(void) {
  struct sigevent own = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 10, .sigev_value.sival_int = 88, ._sigev_un._tid = gettid()};
  MUST(timer_create(CLOCK_THREAD_CPUTIME_ID, &own, &computing) == 0);
  own.sigev_signo = SIGRTMIN + 11;
  MUST(timer_create(CLOCK_THREAD_CPUTIME_ID, &own, &disarmed) == 0);
  struct itimerspec once = in(0, 0, CPU_SECONDS, 0), periodic = in(0, 0, 100000, 1), off = in(0, 0, 0, 1);
  MUST(timer_settime(computing, 0, &once, 0) == 0 && timer_settime(disarmed, 0, &periodic, 0) == 0 && timer_settime(disarmed, 0, &off, 0) == 0);
  struct itimerval virtual = {{0, 500000}, {1000, 0}}, none = {{0, 500000}, {0, 0}};
  MUST(setitimer(ITIMER_VIRTUAL, &virtual, 0) == 0 && setitimer(ITIMER_VIRTUAL, &none, 0) == 0);
}

static void set_timers(void) {
  for (int c = 0; c < 3; c++)
    for (int absolute = 0; absolute < 2; absolute++)
      for (int kind = 0; kind < KINDS; kind++) timers[c][absolute][kind] = set_timer(clocks[c], absolute, kind);
  cancelled = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  struct itimerspec value = in(CLOCK_REALTIME, 1, 100000, 0);
  MUST(timerfd_settime(cancelled, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &value, 0) == 0);
  struct sigevent none = {.sigev_notify = SIGEV_NONE}, queued = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 9, .sigev_value.sival_int = 77};
  MUST(timer_create(CLOCK_MONOTONIC, &none, &silent) == 0 && timer_create(CLOCK_MONOTONIC, &none, &silent_periodic) == 0);
  struct itimerspec once = in(0, 0, 100000, 0), periodic = in(0, 0, 100000, 50000), soon = in(0, 0, 0.01, 0);
  MUST(timer_settime(silent, 0, &once, 0) == 0 && timer_settime(silent_periodic, 0, &periodic, 0) == 0);
  timer_t signalling;
  MUST(timer_create(CLOCK_MONOTONIC, &queued, &signalling) == 0 && timer_settime(signalling, 0, &soon, 0) == 0);
  set_cpu_timers();
  // Signals of one number keep their order: this one is to come before those that are queued.
  for (sigset_t pending; sigpending(&pending) == 0 && !sigismember(&pending, SIGRTMIN + 9);) usleep(1000);
  struct itimerval real = {{0, 500000}, {0, 1000}};
  MUST(setitimer(ITIMER_REAL, &real, 0) == 0);
}

static void on_signal(int signal, siginfo_t *info, void *context) { (void)signal, (void)info, (void)context; }

static void send(int signal, int to_thread, int value) {
  siginfo_t info = {.si_signo = signal, .si_code = SI_QUEUE, .si_value.sival_int = value};
  info.si_pid = getpid();
  if (to_thread) MUST(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), signal, &info) == 0);
  else MUST(syscall(SYS_rt_sigqueueinfo, getpid(), signal, &info) == 0);
}

static int is_testable(int signal) {
  return signal != SIGKILL && signal != SIGSTOP && signal != SIGCONT && signal != SIGCHLD && signal != SIGALRM && signal != 32 && signal != 33;
}

static void set_handlers(void) {
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
  for (int signal = 1; signal <= 64; signal++)
    if (signal != SIGKILL && signal != SIGSTOP && signal != 32 && signal != 33) MUST(sigaction(signal, &action, 0) == 0);
}

static void set_signals(void) {
  for (int signal = 1; signal <= 64; signal++) {
    if (!is_testable(signal)) continue;
    send(signal, 0, 1000 + signal);
    if (signal > 34) send(signal, 0, 3000 + signal);
  }
  kill(getpid(), SIGRTMAX);
  send(SIGTRAP, 1, 7);
  int pipes[2];
  MUST(pipe(pipes) == 0 && fcntl(pipes[0], F_SETOWN, getpid()) == 0 && fcntl(pipes[0], F_SETSIG, SIGRTMIN + 8) == 0);
  MUST(fcntl(pipes[0], F_SETFL, O_ASYNC | O_NONBLOCK) == 0 && write(pipes[1], "x", 1) == 1);
}

static pid_t stopped_child(void) {
  pid_t child = fork();
  MUST(child >= 0);
  if (child == 0) {
    prctl(PR_SET_NAME, "stopped");
    for (;;) {
      sigset_t all;
      sigfillset(&all);
      sigprocmask(SIG_SETMASK, &all, 0);
      pause();
    }
  }
  return child;
}

static void set_children(void) {
  siginfo_t info;
  struct timespec second = {10, 0};
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  MUST((reported = stopped_child()) > 0 && kill(reported, SIGSTOP) == 0);
  MUST(waitid(P_PID, reported, &info, WSTOPPED) == 0 && sigtimedwait(&set, &info, &second) == SIGCHLD);
  if (quiet) return;
  MUST((unreported = stopped_child()) > 0 && kill(unreported, SIGSTOP) == 0);
  MUST(waitid(P_PID, unreported, &info, WSTOPPED | WNOWAIT) == 0);
}

static void set_fifo(const char *name) {
  snprintf(fifo_path, sizeof fifo_path, "%s.fifo", name);
  unlink(fifo_path);
  MUST(mkfifo(fifo_path, 0600) == 0 && (fifo = open(fifo_path, O_RDONLY | O_NONBLOCK)) >= 0 && fcntl(fifo, F_SETPIPE_SZ, 16384) == 16384);
  struct epoll_event event = {.events = EPOLLIN | EPOLLET};
  MUST((poller = epoll_create1(0)) >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, fifo, &event) == 0);
}

static const char *who(pid_t pid) {
  return pid == getpid() ? "itself" : pid == 0 ? "nobody" : pid == reported ? "reported" : pid == unreported ? "unreported" : "another";
}

static void drain(const char *thread) {
  sigset_t all;
  struct timespec now = {0, 0};
  siginfo_t info;
  sigfillset(&all);
  sigdelset(&all, SIGALRM);
  for (;;) {
    memset(&info, 0, sizeof info);
    int signal = sigtimedwait(&all, &info, &now);
    if (signal < 0) return;
    if (info.si_code == SI_TIMER) {
      fprintf(out, "%s: signal %d of a timer, value %d\n", thread, signal, info.si_value.sival_int);
    } else if (info.si_code == SI_QUEUE) {
      fprintf(out, "%s: signal %d queued by %s, value %d\n", thread, signal, who(info.si_pid), info.si_value.sival_int);
    } else {
      fprintf(out, "%s: signal %d, code %d, from %s\n", thread, signal, info.si_code, info.si_code > 0 && signal != SIGCHLD ? "the kernel" : who(info.si_pid));
    }
  }
}

static void show_signals(void) {
  struct sigaction action;
  for (int signal = 1; signal <= 64; signal++) {
    if (signal == SIGKILL || signal == SIGSTOP || signal == 32 || signal == 33 || sigaction(signal, 0, &action) != 0) continue;
    if (action.sa_sigaction != on_signal) fprintf(out, "signal %d has lost its handler\n", signal);
  }
  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, status))
    if (strncmp(line, "Sig", 3) == 0 && strncmp(line, "SigQ", 4) != 0) fputs(line, out);
  fclose(status);
}

static void show_timers(void) {
  for (int c = 0; c < 3; c++)
    for (int absolute = 0; absolute < 2; absolute++)
      for (int kind = 0; kind < KINDS; kind++) {
        int fd = timers[c][absolute][kind];
        struct itimerspec value;
        uint64_t count = 0;
        int got = read(fd, &count, 8) == 8;
        MUST(timerfd_gettime(fd, &value) == 0);
        int armed = value.it_value.tv_sec != 0 || value.it_value.tv_nsec != 0;
        // One that is due, and that the kernel has not come to yet, has 0 left as well: it can be read then.
        struct pollfd again = {fd, POLLIN, 0};
        if (!armed && kind == PERIODIC_UNREAD) armed = poll(&again, 1, 10000) == 1;
        fprintf(out, "timer %d %d %s: %s, %s\n", c, absolute, kinds[kind], !got ? "nothing to read" : count == 1 ? "read 1" : "read more", armed ? "armed" : "not armed");
      }
  struct itimerspec value;
  struct itimerval real;
  MUST(timer_gettime(silent, &value) == 0);
  fprintf(out, "silent timer: %s\n", value.it_value.tv_sec > 50000 ? "runs" : "does not run");
  MUST(timer_gettime(silent_periodic, &value) == 0);
  fprintf(out, "silent periodic timer: %s, every %ld s\n", value.it_value.tv_sec > 50000 ? "runs" : "does not run", (long)value.it_interval.tv_sec);
  MUST(getitimer(ITIMER_REAL, &real) == 0);
  fprintf(out, "interval timer: every %ld us\n", (long)real.it_interval.tv_usec);
  sigset_t alarm;
  siginfo_t info;
  struct timespec seconds = {10, 0};
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  for (int i = 0; i < 2; i++) fprintf(out, "it goes %s\n", sigtimedwait(&alarm, &info, &seconds) == SIGALRM ? "off" : "silent");
  uint64_t count;
  fprintf(out, "cancelled: %s\n", read(cancelled, &count, 8) == 8 ? "read" : errno == ECANCELED ? "yes" : "no");
}

static long cpu_milliseconds(void) {
  struct timespec now;
  MUST(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void show_cpu_timers(void) {
  struct itimerspec value;
  MUST(timer_gettime(computing, &value) == 0);
  fprintf(out, "timer of this thread: %s\n", value.it_value.tv_sec < CPU_SECONDS && (value.it_value.tv_sec > 0 || value.it_value.tv_nsec > 0) ? "runs" : "does not run");
  long left = value.it_value.tv_sec * 1000 + value.it_value.tv_nsec / 1000000, start = cpu_milliseconds(), took = 0;
  sigset_t pending;
  // Longer than the interval of the one that is disarmed, and not for ever.
  for (int gone = 0; took < 2000 || (!gone && took < 4000 * CPU_SECONDS); took = cpu_milliseconds() - start) {
    MUST(sigpending(&pending) == 0);
    if (!gone && sigismember(&pending, SIGRTMIN + 10) == 1) {
      gone = 1;
      fprintf(out, "it goes off %s\n", took + 20 >= left && took < left + 1000 ? "in time" : "at another time");
    }
  }
  siginfo_t info = {0};
  sigset_t set;
  struct timespec now = {0, 0};
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 10);
  int signal = sigtimedwait(&set, &info, &now);
  fprintf(out, "its signal: %s, value %d\n", signal == SIGRTMIN + 10 && info.si_code == SI_TIMER ? "of a timer" : "none", info.si_value.sival_int);
  MUST(timer_gettime(disarmed, &value) == 0);
  fprintf(out, "disarmed timer of this thread: %s\n", value.it_value.tv_sec != 0 || value.it_value.tv_nsec != 0 || sigismember(&pending, SIGRTMIN + 11) == 1 ? "runs" : "does not run");
  struct itimerval virtual;
  MUST(getitimer(ITIMER_VIRTUAL, &virtual) == 0);
  fprintf(out, "disarmed interval timer: %s\n", virtual.it_value.tv_sec != 0 || virtual.it_value.tv_usec != 0 || sigismember(&pending, SIGVTALRM) == 1 ? "runs" : "does not run");
}

static void show_child(const char *name, pid_t child) {
  siginfo_t info = {0};
  MUST(waitid(P_PID, child, &info, WSTOPPED | WNOHANG) == 0);
  char path[64], line[256] = "";
  snprintf(path, sizeof path, "/proc/%d/stat", child);
  FILE *stat = fopen(path, "r");
  MUST(stat && fgets(line, sizeof line, stat));
  fclose(stat);
  fprintf(out, "%s child: %s by %d, %s\n", name, info.si_pid == 0 ? "no news" : "stopped", info.si_status, strstr(line, ") T ") ? "is stopped" : "runs");
}

static void show_fifo(void) {
  struct pollfd state = {fifo, POLLIN, 0};
  struct epoll_event event;
  char c;
  int ready = poll(&state, 1, 0), events = epoll_wait(poller, &event, 1, 0);
  fprintf(out, "fifo: poll %d 0x%x, epoll %d, read %zd, size %d, flags 0%o\n", ready, state.revents, events, read(fifo, &c, 1), fcntl(fifo, F_GETPIPE_SZ), fcntl(fifo, F_GETFL));
  int writer = open(fifo_path, O_WRONLY);
  MUST(writer >= 0 && write(writer, "x", 1) == 1 && read(fifo, &c, 1) == 1);
  close(writer);
  ready = poll(&state, 1, 0);
  fprintf(out, "fifo after a writer: poll %d 0x%x\n", ready, state.revents);
}

static void *second(void *argument) {
  (void)argument;
  send(SIGTRAP, 1, 5);
  send(SIGUSR1, 1, 6);
  syscall(SYS_tgkill, getpid(), gettid(), SIGUSR2);
  pthread_barrier_wait(&ready);
  while (access(go_path, F_OK) != 0) usleep(50000);
  pthread_barrier_wait(&ready);
  drain("second");
  pthread_barrier_wait(&ready);
  return 0;
}

int main(int argc, char **argv) {
  MUST(argc >= 2 && freopen("/dev/null", "r", stdin));
  quiet = argc > 2;
  setsid();
  snprintf(go_path, sizeof go_path, "%s.go", argv[1]);
  sigset_t all;
  sigfillset(&all);
  MUST(sigprocmask(SIG_SETMASK, &all, 0) == 0);
  set_handlers();
  set_children();
  set_timers();
  set_fifo(argv[1]);
  set_signals();
  pthread_barrier_init(&ready, 0, 2);
  pthread_t thread;
  MUST(pthread_create(&thread, 0, second, 0) == 0);
  pthread_barrier_wait(&ready);
  MUST((out = fopen(argv[1], "w")) != 0 && fputs("ready\n", out) >= 0 && fflush(out) == 0);
  while (access(go_path, F_OK) != 0) usleep(50000);
  MUST(freopen(argv[1], "w", out) != 0);
  show_signals();
  pthread_barrier_wait(&ready);
  pthread_barrier_wait(&ready);
  drain("first");
  show_timers();
  show_cpu_timers();
  show_child("reported", reported);
  if (!quiet) show_child("unreported", unreported);
  show_fifo();
  fputs("done\n", out);
  fclose(out);
  kill(reported, SIGKILL);
  if (!quiet) kill(unreported, SIGKILL);
  return 0;
}
