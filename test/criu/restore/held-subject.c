// A process with two threads and two children, and with SIGTRAP blocked. Says who they are and where its handler is, and after a line of
// input what has become of its signals, in JSON.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t news;
static pid_t other_tid;
static int to_other[2], from_other[2];

static void on_child(int signal)
{
	(void)signal;
	news++;
}

static void on_trap(int signal)
{
	(void)signal;
}

/* `code value` of the next pending SIGTRAP; whoever sent it has to be this process. */
static int take(int *value)
{
	struct timespec now = {0, 0};
	sigset_t set;
	siginfo_t info;
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	memset(&info, 0, sizeof info);
	/* The C library's own makes SI_USER of SI_TKILL. */
	if (syscall(SYS_rt_sigtimedwait, &set, &info, &now, 8) != SIGTRAP)
		return -100;
	*value = info.si_value.sival_int;
	return info.si_pid == getpid() ? info.si_code : -200;
}

static void *other(void *argument)
{
	char c;
	int answer[2] = {0, 0};
	(void)argument;
	other_tid = gettid();
	if (write(from_other[1], "x", 1) != 1)
		return 0;
	while (read(to_other[0], &c, 1) != 1)
		;
	/* Its own before the one of the process. */
	answer[0] = take(&answer[1]);
	if (write(from_other[1], answer, sizeof answer) != sizeof answer)
		return 0;
	return 0;
}

static pid_t child(void)
{
	pid_t pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		for (;;)
			pause();
	}
	setpgid(pid, pid);
	return pid;
}

static int stop_of(pid_t pid)
{
	siginfo_t info;
	memset(&info, 0, sizeof info);
	waitid(P_PID, pid, &info, WSTOPPED | WNOHANG);
	return info.si_pid == 0 ? 0 : info.si_status;
}

int main(void)
{
	struct sigaction action;
	sigset_t set;
	char line[16];
	int trap[2], value = 0, answer[2];
	setsid();
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &set, 0);
	memset(&action, 0, sizeof action);
	action.sa_handler = on_child;
	action.sa_flags = SA_RESTART;
	sigaction(SIGCHLD, &action, 0);
	pid_t known = child(), unknown = child();
	pthread_t thread;
	if (pipe(to_other) != 0 || pipe(from_other) != 0 || pthread_create(&thread, 0, other, 0) != 0)
		return 1;
	if (read(from_other[0], line, 1) != 1)
		return 1;
	printf("{\"pid\":%d,\"tid\":%d,\"known\":%d,\"unknown\":%d,\"handler\":\"0x%lx\"}\n", getpid(), other_tid, known, unknown,
	       (unsigned long)(uintptr_t)on_trap);
	fflush(stdout);
	if (fgets(line, sizeof line, stdin) == 0)
		return 1;
	if (write(to_other[1], "x", 1) != 1 || read(from_other[0], answer, sizeof answer) != sizeof answer)
		return 1;
	trap[0] = take(&value);
	trap[1] = take(&value);
	sigaction(SIGTRAP, 0, &action);
	printf("{\"news\":%d,\"known\":%d,\"unknown\":%d,\"traps\":[%d,%d],\"ofThread\":%d,\"handler\":%d}\n", (int)news, stop_of(known),
	       stop_of(unknown), trap[0], trap[1], answer[0], action.sa_handler == on_trap);
	fflush(stdout);
	kill(known, SIGKILL);
	kill(unknown, SIGKILL);
	return 0;
}
