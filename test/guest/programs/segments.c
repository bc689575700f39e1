/*
 * System V shared memory of each kind, in two processes: one that both have attached, the child for reading only; one that nobody
 * has attached; one that was removed and is attached. With SIGHUP it writes to the file in its argument what it finds of them, each
 * line as it has to be before and after a resurrection, and `done`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <unistd.h>

#define PAGE 4096
#define SHARED_KEY 0x4f570001
#define LEFT_KEY ((key_t)0xcf570002)
#define SHARED_BYTES (4 * PAGE + 100)
#define MUST(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s: %s\n", #condition, strerror(errno)); \
			exit(1); \
		} \
	} while (0)

static FILE *output;
static volatile sig_atomic_t asked;

static void ask(int signal)
{
	(void)signal;
	asked = 1;
}

static void say(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vfprintf(output, format, arguments);
	va_end(arguments);
	fputc('\n', output);
	fflush(output);
}

/* What each page has but the second, which was never touched. */
static void fill(unsigned char *memory, size_t bytes, int seed)
{
	for (size_t i = 0; i < bytes; i++)
		if (i / PAGE != 1)
			memory[i] = (unsigned char)(i * 7 + i / PAGE + (size_t)seed);
}

static int is_filled(const unsigned char *memory, size_t bytes, int seed, size_t from)
{
	for (size_t i = from; i < bytes; i++)
		if (memory[i] != (i / PAGE == 1 ? 0 : (unsigned char)(i * 7 + i / PAGE + (size_t)seed)))
			return 0;
	return 1;
}

static void say_ids(const char *name, int id)
{
	struct shmid_ds ds;
	if (shmctl(id, IPC_STAT, &ds) != 0) {
		say("%s: %s", name, strerror(errno));
		return;
	}
	const struct ipc_perm *perm = &ds.shm_perm;
	say("%s: key %08x, owner %u:%u, maker %u:%u, mode %o, %zu bytes, %lu attachments", name, (unsigned)perm->__key,
	    perm->uid, perm->gid, perm->cuid, perm->cgid, (unsigned)perm->mode, ds.shm_segsz, (unsigned long)ds.shm_nattch);
}

/* How the areas from an address on may be used, each as in /proc/self/maps. */
static void say_areas(const char *name, pid_t pid, const void *address, size_t bytes)
{
	char path[64], line[512], all[256] = "";
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	FILE *maps = fopen(path, "r");
	MUST(maps != NULL);
	while (fgets(line, sizeof line, maps)) {
		unsigned long start, end;
		char access[8];
		if (sscanf(line, "%lx-%lx %7s", &start, &end, access) != 3)
			continue;
		if (start < (unsigned long)address || start >= (unsigned long)address + bytes)
			continue;
		snprintf(all + strlen(all), sizeof all - strlen(all), " %s %lu", access, (end - start) / PAGE);
	}
	fclose(maps);
	say("%s:%s", name, all);
}

int main(int argc, char **argv)
{
	MUST(argc == 2 && (output = fopen(argv[1], "a")) != NULL);
	/* Not the first numbers: these a new system would give as well. */
	for (int i = 0; i < 3; i++)
		MUST(shmctl(shmget(IPC_PRIVATE, PAGE, 0600), IPC_RMID, NULL) == 0);
	MUST(setegid(1002) == 0 && seteuid(1001) == 0);
	int shared = shmget(SHARED_KEY, SHARED_BYTES, IPC_CREAT | IPC_EXCL | 0640);
	MUST(shared >= 0 && seteuid(0) == 0 && setegid(0) == 0);
	struct shmid_ds ds;
	MUST(shmctl(shared, IPC_STAT, &ds) == 0);
	ds.shm_perm.uid = 1003;
	ds.shm_perm.gid = 1004;
	MUST(shmctl(shared, IPC_SET, &ds) == 0);
	int left = shmget(LEFT_KEY, 3 * PAGE, IPC_CREAT | IPC_EXCL | 0600), removed = shmget(IPC_PRIVATE, PAGE, 0600);
	MUST(left >= 0 && removed >= 0);

	unsigned char *memory = shmat(shared, NULL, 0), *gone = shmat(removed, NULL, 0), *other = shmat(left, NULL, 0);
	MUST(memory != (void *)-1 && gone != (void *)-1 && other != (void *)-1);
	fill(memory, SHARED_BYTES, 1);
	fill(other, 3 * PAGE, 2);
	MUST(shmdt(other) == 0 && shmctl(removed, IPC_RMID, NULL) == 0);
	memset(gone, 0, PAGE);
	/* Whole pages are attached, and this stays in the last one. */
	memory[SHARED_BYTES + 50] = 0x5a;
	MUST(mlock(gone, PAGE) == 0);

	pid_t child = fork();
	MUST(child >= 0);
	if (child == 0) {
		MUST(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && shmdt(memory) == 0);
		const volatile unsigned *own = shmat(shared, memory, SHM_RDONLY);
		MUST(own == (const void *)memory);
		for (volatile unsigned *answer = (unsigned *)gone;; usleep(10000))
			answer[1] = own[0];
	}
	MUST(mprotect(memory + 2 * PAGE, PAGE, PROT_READ) == 0);
	signal(SIGHUP, ask);
	say("ready");
	for (unsigned round = 1;; round++) {
		while (!asked)
			pause();
		asked = 0;
		say("numbers: %s, %s", shmget(SHARED_KEY, 0, 0) == shared ? "same" : "another", shmget(LEFT_KEY, 0, 0) == left ? "same" : "another");
		say_ids("shared", shared);
		say_ids("left", left);
		say_ids("removed", removed);
		say_areas("parent", getpid(), memory, 5 * PAGE);
		say_areas("child", child, memory, 5 * PAGE);
		say("content: %s", is_filled(memory, SHARED_BYTES, 1, 4) ? "same" : "another");
		say("behind its size: %x", memory[SHARED_BYTES + 50]);
		other = shmat(left, NULL, SHM_RDONLY);
		say("left content: %s", other != (void *)-1 && is_filled(other, 3 * PAGE, 2, 0) ? "same" : "another");
		if (other != (void *)-1)
			shmdt(other);
		*(volatile unsigned *)memory = 0x1000 + round;
		for (int i = 0; i < 500 && ((volatile unsigned *)gone)[1] != 0x1000 + round; i++)
			usleep(10000);
		say("answer: %x", ((volatile unsigned *)gone)[1] - round);
		/* Attached for writing, whatever it is now. */
		say("writable again: %s", mprotect(memory + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0 ? "yes" : "no");
		mprotect(memory + 2 * PAGE, PAGE, PROT_READ);
		say("done");
	}
}
