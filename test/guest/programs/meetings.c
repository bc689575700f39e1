/*
 * Where processes and the kernel meet without a file: System V semaphores with operations to be undone and somebody who waits,
 * message queues with messages and a receiver, contexts of asynchronous I/O with events that nobody has read. With SIGHUP it writes
 * to the file in its argument what it finds of them, each line as it has to be before and after a resurrection, and `done`; with
 * SIGUSR1 it uses all of them, says what comes of it, and `finished`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SET_KEY 0x4f580001
#define QUEUE_KEY ((key_t)0xcf590002)
#define SEMAPHORES 4
#define LONG_BYTES 5000
#define CONTEXTS 3
#define MUST(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s: %s\n", #condition, strerror(errno)); \
			exit(1); \
		} \
	} while (0)

struct message {
	long type;
	char text[LONG_BYTES + 1];
};

/* fs/aio.c: the head of a ring; events follow. */
struct ring {
	unsigned id, nr, head, tail, magic, compat, incompat, header_length;
	struct io_event events[];
};

static int output, set, queue, private_queue, null_file;
static pid_t parent, holder, waiter, receiver;
static aio_context_t contexts[CONTEXTS];
static volatile sig_atomic_t asked, to_finish;

static void ask(int signal)
{
	if (signal == SIGHUP)
		asked = 1;
	else
		to_finish = 1;
}

/* One line, appended at once: several processes write. */
static void say(const char *format, ...)
{
	char line[1024];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	line[length] = '\n';
	MUST(write(output, line, (size_t)length + 1) == length + 1);
}

static void change(int semaphore, int by, int flags)
{
	struct sembuf operation = {(unsigned short)semaphore, (short)by, (short)flags};
	MUST(semop(set, &operation, 1) == 0);
}

static int value_of(int semaphore, int command)
{
	int value = semctl(set, semaphore, command);
	MUST(value >= 0);
	return value;
}

static const char *name_of(pid_t pid)
{
	return pid == 0 ? "nobody" : pid == parent ? "parent" : pid == holder ? "holder" : pid == waiter ? "waiter" : "another";
}

static void make_semaphores(void)
{
	for (int i = 0; i < 3; i++)
		MUST(semctl(semget(IPC_PRIVATE, 1, 0600), 0, IPC_RMID) == 0);
	MUST(setegid(1002) == 0 && seteuid(1001) == 0);
	set = semget(SET_KEY, SEMAPHORES, IPC_CREAT | IPC_EXCL | 0600);
	MUST(set >= 0 && seteuid(0) == 0 && setegid(0) == 0);
	struct semid_ds ds;
	MUST(semctl(set, 0, IPC_STAT, &ds) == 0);
	ds.sem_perm.uid = 1003;
	ds.sem_perm.gid = 1004;
	ds.sem_perm.mode = 0640;
	MUST(semctl(set, 0, IPC_SET, &ds) == 0);
	MUST(semctl(set, 0, SETVAL, 5) == 0 && semctl(set, 2, SETVAL, 32767) == 0 && semctl(set, 3, SETVAL, 1) == 0);
	change(0, -2, SEM_UNDO);
	change(1, 3, SEM_UNDO);
}

static void make_queues(void)
{
	static struct message message;
	for (int i = 0; i < 3; i++)
		MUST(msgctl(msgget(IPC_PRIVATE, 0600), IPC_RMID, NULL) == 0);
	queue = msgget(QUEUE_KEY, IPC_CREAT | IPC_EXCL | 0620);
	private_queue = msgget(IPC_PRIVATE, 0600);
	MUST(queue >= 0 && private_queue >= 0);
	message = (struct message){3, "short"};
	MUST(msgsnd(queue, &message, 5, 0) == 0);
	message.type = 1L << 40;
	for (int i = 0; i < LONG_BYTES; i++)
		message.text[i] = (char)(i * 7 + i / 251);
	MUST(msgsnd(queue, &message, LONG_BYTES, 0) == 0);
	message.type = 1;
	MUST(msgsnd(queue, &message, 0, 0) == 0);
	struct msqid_ds ds;
	MUST(msgctl(queue, IPC_STAT, &ds) == 0);
	ds.msg_perm.uid = 1005;
	ds.msg_qbytes = 4000;
	MUST(msgctl(queue, IPC_SET, &ds) == 0);
}

/* Each request is done when this returns: nothing keeps /dev/null waiting. */
static void submit(int context, unsigned long first, int count)
{
	for (int i = 0; i < count; i++) {
		static char byte;
		struct iocb request = {.aio_data = first + (unsigned long)i, .aio_lio_opcode = IOCB_CMD_PWRITE,
			.aio_fildes = (unsigned)null_file, .aio_buf = (unsigned long)&byte, .aio_nbytes = 1};
		struct iocb *requests[] = {&request};
		MUST(syscall(SYS_io_submit, contexts[context], 1L, requests) == 1);
	}
}

static void reap(int context, int count)
{
	struct io_event event;
	for (int i = 0; i < count; i++)
		MUST(syscall(SYS_io_getevents, contexts[context], 1L, 1L, &event, NULL) == 1);
}

/* Two events are unread in the first context, some around the end of the ring in the second; somebody waits for the third one's. */
static void make_contexts(void)
{
	null_file = open("/dev/null", O_WRONLY);
	MUST(null_file >= 0);
	for (int i = 0; i < CONTEXTS; i++)
		MUST(syscall(SYS_io_setup, i == 0 ? 500 : 1, &contexts[i]) == 0);
	submit(0, 100, 3);
	reap(0, 1);
	int places = (int)((struct ring *)contexts[1])->nr;
	for (int i = 0; i < places - 2; i++) {
		submit(1, 0, 1);
		reap(1, 1);
	}
	submit(1, 200, 5);
}

static void *wait_for_event(void *unused)
{
	(void)unused;
	struct io_event event;
	long count;
	while ((count = syscall(SYS_io_getevents, contexts[2], 1L, 1L, &event, NULL)) < 0 && errno == EINTR)
		;
	say("event: %ld, data %llu, result %lld", count, event.data, event.res);
	return NULL;
}

static pid_t start(void (*work)(void))
{
	pid_t pid = fork();
	MUST(pid >= 0);
	if (pid > 0)
		return pid;
	signal(SIGHUP, SIG_DFL);
	MUST(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	work();
	for (;;)
		pause();
}

static void hold(void)
{
	change(2, -7, SEM_UNDO);
	change(3, -1, SEM_UNDO);
}

static void wait_for_semaphore(void)
{
	change(3, -1, SEM_UNDO);
	say("waiter has it");
}

static void wait_for_message(void)
{
	static struct message message;
	long bytes = msgrcv(private_queue, &message, LONG_BYTES, 5, 0);
	say("received: %ld bytes, %.*s", bytes, (int)bytes, message.text);
}

static void say_semaphores(void)
{
	struct semid_ds ds;
	MUST(semctl(set, 0, IPC_STAT, &ds) == 0);
	const struct ipc_perm *perm = &ds.sem_perm;
	say("set: %s, key %08x, owner %u:%u, maker %u:%u, mode %o, %lu semaphores, %s", semget(SET_KEY, 0, 0) == set ? "same" : "another",
	    (unsigned)perm->__key, perm->uid, perm->gid, perm->cuid, perm->cgid, (unsigned)perm->mode, ds.sem_nsems,
	    ds.sem_otime == 0 ? "unused" : "used");
	/* Who waits comes back a moment later. */
	for (int i = 0; i < 1000 && value_of(3, GETNCNT) == 0; i++)
		usleep(10000);
	for (int i = 0; i < SEMAPHORES; i++)
		say("semaphore %d: %d, by %s, %d wait", i, value_of(i, GETVAL), name_of(value_of(i, GETPID)), value_of(i, GETNCNT));
}

static void say_queue(const char *name, int id)
{
	static struct message message;
	struct msqid_ds ds;
	MUST(msgctl(id, IPC_STAT, &ds) == 0);
	const struct ipc_perm *perm = &ds.msg_perm;
	say("%s: key %08x, owner %u:%u, maker %u:%u, mode %o, %lu messages, %lu of %lu bytes", name, (unsigned)perm->__key, perm->uid,
	    perm->gid, perm->cuid, perm->cgid, (unsigned)perm->mode, ds.msg_qnum, ds.__msg_cbytes, ds.msg_qbytes);
	for (long i = 0; i < (long)ds.msg_qnum; i++) {
		long bytes = msgrcv(id, &message, LONG_BYTES, i, MSG_COPY | IPC_NOWAIT);
		MUST(bytes >= 0);
		unsigned sum = 0;
		for (long at = 0; at < bytes; at++)
			sum = sum * 31 + (unsigned char)message.text[at];
		say("message: type %ld, %ld bytes, sum %x", message.type, bytes, sum);
	}
}

static void say_contexts(void)
{
	for (int i = 0; i < CONTEXTS; i++) {
		const struct ring *ring = (const struct ring *)contexts[i];
		say("context %d at %lx: %u places, %u to %u", i, (unsigned long)contexts[i], ring->nr, ring->head, ring->tail);
		for (unsigned at = ring->head; at != ring->tail; at = (at + 1) % ring->nr)
			say("event: data %llu, result %lld", ring->events[at].data, ring->events[at].res);
	}
}

/* As many requests as there is room for, one after the other, and all of their events. */
static void fill(int context)
{
	static char byte;
	static struct io_event events[2000];
	int unread = (int)syscall(SYS_io_getevents, contexts[context], 0L, 2000L, events, NULL), taken = 0;
	struct iocb request = {.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = (unsigned)null_file, .aio_buf = (unsigned long)&byte,
		.aio_nbytes = 1};
	struct iocb *requests[] = {&request};
	while (taken < 2000 && syscall(SYS_io_submit, contexts[context], 1L, requests) == 1)
		taken++;
	int reaped = (int)syscall(SYS_io_getevents, contexts[context], 0L, 2000L, events, NULL);
	int places = (int)((struct ring *)contexts[context])->nr;
	say("context %d: %d unread, then %s, %s", context, unread, taken > places / 2 && taken < places ? "filled" : "not filled",
	    reaped == taken ? "all read" : "some lost");
}

static void finish(void)
{
	struct message message = {5, "hello"};
	MUST(msgsnd(private_queue, &message, 5, 0) == 0);
	submit(2, 300, 1);
	fill(0);
	fill(1);
	MUST(kill(holder, SIGKILL) == 0 && waitpid(holder, NULL, 0) == holder);
	for (int i = 0; i < 1000 && value_of(3, GETNCNT) > 0; i++)
		usleep(10000);
	say("without holder: %d %d %d %d", value_of(0, GETVAL), value_of(1, GETVAL), value_of(2, GETVAL), value_of(3, GETVAL));
	say("number: %d", set);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	MUST(argc == 2 && (output = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0600)) >= 0);
	parent = getpid();
	make_semaphores();
	make_queues();
	holder = start(hold);
	/* The one that waits comes second. */
	while (value_of(3, GETVAL) > 0)
		usleep(10000);
	waiter = start(wait_for_semaphore);
	receiver = start(wait_for_message);
	make_contexts();
	MUST(pthread_create(&thread, NULL, wait_for_event, NULL) == 0);
	signal(SIGHUP, ask);
	signal(SIGUSR1, ask);
	say("ready");
	for (;;) {
		while (!asked && !to_finish)
			pause();
		if (asked) {
			asked = 0;
			say_semaphores();
			say("queue: %s", msgget(QUEUE_KEY, 0) == queue ? "same" : "another");
			say_queue("queue", queue);
			say_queue("private queue", private_queue);
			say_contexts();
			say("done");
		}
		if (to_finish) {
			to_finish = 0;
			finish();
			say("finished");
		}
	}
}
