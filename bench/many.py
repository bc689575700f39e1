"""A process that has many of one thing and sleeps: `many.py KIND NUMBER DIRECTORY`.

It works in DIRECTORY, and makes the file `ready` there when it is done. At each SIGUSR1 it looks at everything
that it has, and writes what it found to `answer`: `ok`, or what is wrong.

KIND is what it has NUMBER of:
none: nothing, to compare with.
descriptors: a fifth each of regular files, of more openings of one file, of eventfds, of pipes' ends and of
    ends of unix socket pairs. Each opening has an offset of its own.
connections: TCP connections over the loopback, both ends its own, each with something unread in one of them.
areas: a quarter each of private memory, of private pieces of a file, of pieces of one memfd, and of shared
    memories. A child of its own writes to all of them: what is shared shows that, what is private does not.
threads: a quarter each that sleep, read from a pipe, wait for a lock and wait in select; the first and the last
    with a limit. Each is woken, tells what it waited for and how much of its limit was left, and waits again.
"""

import ctypes
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time

PAGE = mmap.PAGESIZE
# Seconds: of a look, and until all threads wait, or have answered. More than a slow guest needs for 1,000.
LOOK_SECONDS, ANSWER_SECONDS = 500, 200
# Seconds that threads wait at most; and how far what is left of them may be from what the clock says: a panic
# takes time, which some clocks count.
LIMIT, LIMIT_SLACK = 10**6, 3600

libc = ctypes.CDLL(None, use_errno=True)
directory = "."


def place(name):
    return os.path.join(directory, name)


def expect(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what} is {found!r} and was {wanted!r}")


def none(_):
    return lambda: None


def descriptors(number):
    fifth = number // 5
    files = []
    for i in range(fifth):
        fd = os.open(place(f"file-{i}"), os.O_RDWR | os.O_CREAT, 0o600)
        os.write(fd, b"%d" % i)
        files.append(fd)
    again = [os.open(place("file-0"), os.O_RDONLY) for _ in range(fifth)]
    for i, fd in enumerate(again):
        os.lseek(fd, i + 2, os.SEEK_SET)
    counters = [os.eventfd(i + 1, os.EFD_NONBLOCK) for i in range(fifth)]
    pipes = [os.pipe() for _ in range(fifth // 2)]
    pairs = [socket.socketpair() for _ in range(fifth // 2)]

    def look():
        for i, fd in enumerate(files):
            expect(f"file {i}", os.pread(fd, 20, 0), b"%d" % i)
            expect(f"the offset in file {i}", os.lseek(fd, 0, os.SEEK_CUR), len(str(i)))
        for i, fd in enumerate(again):
            expect("file 0", os.pread(fd, 20, 0), b"0")
            expect(f"the offset of opening {i}", os.lseek(fd, 0, os.SEEK_CUR), i + 2)
        for i, fd in enumerate(counters):
            expect(f"eventfd {i}", os.eventfd_read(fd), i + 1)
            os.eventfd_write(fd, i + 1)
        for i, (reader, writer) in enumerate(pipes):
            os.write(writer, b"%d" % i)
            expect(f"pipe {i}", os.read(reader, 20), b"%d" % i)
        for i, (one, other) in enumerate(pairs):
            one.send(b"%d" % i)
            expect(f"socket pair {i}", other.recv(20), b"%d" % i)

    return look


def connections(number):
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    address = listener.getsockname()
    pairs = []
    for i in range(number):
        client = socket.create_connection(address)
        server, _ = listener.accept()
        client.send(b"%d" % i)
        pairs.append((client, server))

    def look():
        for i, (client, server) in enumerate(pairs):
            expect(f"connection {i}", server.recv(20), b"%d" % i)
            server.send(b"answer %d" % i)
            expect(f"connection {i}", client.recv(20), b"answer %d" % i)
            client.send(b"%d" % i)

    return look


def in_child(step):
    child = os.fork()
    if child == 0:
        try:
            step()
        except BaseException:
            os._exit(1)
        os._exit(0)
    expect("the status of a child", os.waitpid(child, 0)[1], 0)


def areas(number):
    quarter = number // 4
    size = 2 * quarter * PAGE
    fd = os.open(place("mapped"), os.O_RDWR | os.O_CREAT, 0o600)
    memfd = os.memfd_create("many")
    for file in fd, memfd:
        os.ftruncate(file, size)
        for i in range(2 * quarter):
            os.pwrite(file, b"%08d" % i, i * PAGE)
    made = []
    private, shared, both = mmap.MAP_PRIVATE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
    for i in range(quarter):
        at = 2 * i * PAGE
        # Neighbours of unlike kinds: the kernel cannot make one area of two.
        made.append((mmap.mmap(-1, PAGE, private | mmap.MAP_ANONYMOUS, both), b"private %d" % i, False))
        made.append((mmap.mmap(fd, PAGE, private, both, offset=at), b"piece %d" % i, False))
        made.append((mmap.mmap(memfd, PAGE, shared, both, offset=at), b"%08d" % (2 * i), True))
        made.append((mmap.mmap(-1, PAGE, shared | mmap.MAP_ANONYMOUS, both), b"shared %d" % i, True))
    for memory, text, _ in made:
        memory[: len(text)] = text
    mark = slice(64, 72)
    looks = 0

    def write_marks():
        for memory, _, _ in made:
            memory[mark] = b"%08d" % looks

    def look():
        nonlocal looks
        looks += 1
        in_child(write_marks)
        for i, (memory, text, is_shared) in enumerate(made):
            expect(f"area {i}", memory[: len(text)], text)
            seen = b"%08d" % looks if is_shared else bytes(8)
            expect(f"what area {i} has of a child's", memory[mark], seen)
        for i in range(quarter):
            at = 2 * i * PAGE
            expect(f"piece {i} of the file", os.pread(fd, PAGE, at), (b"%08d" % (2 * i)).ljust(PAGE, b"\0"))
            expect(f"what the memfd has of piece {i}", os.pread(memfd, 8, at + mark.start), b"%08d" % looks)
            os.pwrite(memfd, b"%08d" % looks, at + 128)
            expect(f"what piece {i} has of the memfd", made[4 * i + 2][0][128:136], b"%08d" % looks)

    return look


class Timespec(ctypes.Structure):
    """A timespec or a timeval: seconds, and nanoseconds or microseconds."""

    _fields_ = [("seconds", ctypes.c_long), ("fraction", ctypes.c_long)]


def rest_problem(what, began, rest):
    """What is wrong with the seconds that are left of LIMIT; an empty text if nothing is."""
    wanted = LIMIT - (time.monotonic() - began)
    if abs(rest - wanted) <= LIMIT_SLACK:
        return ""
    return f"{what} has {rest} s left of its limit, and had {wanted:.0f}"


class Kind:
    """How a quarter of the threads waits, and is woken."""

    def __init__(self, calls):
        # Numbers of the system calls that its threads are in (x86-64).
        self.calls = calls

    def renew(self):
        """Makes that threads can wait again, when all have been woken."""


class Sleep(Kind):
    def __init__(self):
        # nanosleep, clock_nanosleep, restart_syscall
        super().__init__({35, 230, 219})
        signal.signal(signal.SIGUSR2, lambda *_: None)

    def wait(self):
        began, rest = time.monotonic(), Timespec(-1, 0)
        status = libc.nanosleep(ctypes.byref(Timespec(LIMIT, 0)), ctypes.byref(rest))
        if status == 0:
            return "a sleeper has slept enough"
        return rest_problem("a sleeper", began, rest.seconds)

    def wake(self, threads):
        for thread in threads:
            signal.pthread_kill(thread.ident, signal.SIGUSR2)


class Read(Kind):
    def __init__(self):
        super().__init__({0})
        self.reader, self.writer = os.pipe()

    def wait(self):
        found = os.read(self.reader, 1)
        return "" if found == b"x" else f"a reader has read {found!r}"

    def wake(self, threads):
        os.write(self.writer, b"x" * len(threads))


class Lock(Kind):
    def __init__(self):
        super().__init__({202})
        self.lock = threading.Lock()
        self.renew()

    def wait(self):
        self.lock.acquire()
        self.lock.release()
        return ""

    def wake(self, _):
        self.lock.release()

    def renew(self):
        self.lock.acquire()


class Select(Kind):
    def __init__(self):
        # select, pselect6
        super().__init__({23, 270})
        self.polled, self.writer = os.pipe()

    def wait(self):
        began, rest = time.monotonic(), Timespec(LIMIT, 0)
        fds = (ctypes.c_uint8 * 128)()
        fds[self.polled >> 3] = 1 << (self.polled & 7)
        status = libc.select(self.polled + 1, fds, None, None, ctypes.byref(rest))
        if status != 1:
            return f"select returned {status}, errno {ctypes.get_errno()}"
        return rest_problem("select", began, rest.seconds)

    def wake(self, _):
        os.write(self.writer, b"x")

    def renew(self):
        os.read(self.polled, 1)


def call_of(thread):
    """The number of the system call that a thread is in; undefined ones are -1 and below."""
    with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
        word = file.read().split()[0]
    return int(word) if word.lstrip("-").isdigit() else -2


def threads(number):
    threading.stack_size(256 * 1024)
    kinds = [Sleep(), Read(), Lock(), Select()]
    answers, gate = [], threading.Semaphore(0)

    def run(kind):
        while True:
            try:
                problem = kind.wait()
            except Exception as error:
                problem = repr(error)
            answers.append((type(kind).__name__, problem))
            gate.acquire()

    made = [threading.Thread(target=run, args=(kinds[i % 4],), daemon=True) for i in range(number)]
    for thread in made:
        thread.start()

    def settle():
        """Waits until each is where it is to wait."""
        end = time.monotonic() + ANSWER_SECONDS
        for i, thread in enumerate(made):
            calls = kinds[i % 4].calls
            while (call := call_of(thread)) not in calls:
                if time.monotonic() > end:
                    raise AssertionError(f"thread {i} is in system call {call} and not in one of {calls}")
                time.sleep(0.01)

    def look():
        expect("number of threads", len(os.listdir("/proc/self/task")), number + 1)
        expect("threads that went on", answers, [])
        settle()
        for i, kind in enumerate(kinds):
            kind.wake(made[i::4])
        end = time.monotonic() + ANSWER_SECONDS
        while len(answers) < number and time.monotonic() < end:
            time.sleep(0.01)
        expect("what was wrong", sorted({problem for _, problem in answers} - {""}), [])
        for i, kind in enumerate(kinds):
            name = type(kind).__name__
            expect(f"{name}: threads that were woken", sum(of == name for of, _ in answers), len(made[i::4]))
        answers.clear()
        for kind in kinds:
            kind.renew()
        gate.release(number)
        settle()

    settle()
    return look


def write(name, text):
    with open(place(f".{name}"), "w") as file:
        file.write(text)
    os.rename(place(f".{name}"), place(name))


def too_long(*_):
    raise TimeoutError(f"a look took more than {LOOK_SECONDS} s: something waits that had not to")


def main():
    global directory
    kind, count, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 3 * count + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(needed, hard)))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.signal(signal.SIGALRM, too_long)
    os.makedirs(directory, exist_ok=True)
    look = {f.__name__: f for f in (none, descriptors, connections, areas, threads)}[kind](count)
    write("ready", "")
    while True:
        signal.sigwait([signal.SIGUSR1])
        try:
            signal.alarm(LOOK_SECONDS)
            look()
            signal.alarm(0)
            write("answer", "ok")
        except Exception as problem:
            signal.alarm(0)
            write("answer", f"{type(problem).__name__}: {problem}")


if __name__ == "__main__":
    main()
