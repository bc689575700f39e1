"""A process that has many of one thing and sleeps: `many.py KIND NUMBER DIRECTORY`.

It works in DIRECTORY, and makes the file `ready` there when it is done. At each SIGUSR1 it looks at everything
that it has, and writes what it found to `answer`: `ok`, or what is wrong.

KIND is what it has NUMBER of:
none: nothing, to compare with.
descriptors: a fifth each of regular files, of more openings of one file, of eventfds, of pipes' ends and of
    ends of unix socket pairs.
connections: TCP connections over the loopback, both ends its own, each with something unread in one of them.
areas: a quarter each of private memory, of pieces of a file, of pieces of one memfd, and of shared memories.
threads: a quarter each that sleep, read from a pipe, wait for a lock and poll with a limit.
"""

import array
import mmap
import os
import resource
import select
import signal
import socket
import sys
import threading
import time

PAGE = mmap.PAGESIZE
kind, count, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]


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
    counters = [os.eventfd(i + 1) for i in range(fifth)]
    pipes = [os.pipe() for _ in range(fifth // 2)]
    pairs = [socket.socketpair() for _ in range(fifth // 2)]

    def look():
        for i, fd in enumerate(files):
            expect(f"file {i}", os.pread(fd, 20, 0), b"%d" % i)
            expect(f"the offset in file {i}", os.lseek(fd, 0, os.SEEK_CUR), len(str(i)))
        for fd in again:
            expect("file 0", os.pread(fd, 20, 0), b"0")
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
        # Neighbours of unlike kinds: the kernel cannot make one area of two.
        made.append((mmap.mmap(-1, PAGE, private | mmap.MAP_ANONYMOUS, both), b"private %d" % i))
        made.append((mmap.mmap(fd, PAGE, private, both, offset=2 * i * PAGE), b"%08d" % (2 * i)))
        made.append((mmap.mmap(memfd, PAGE, shared, both, offset=2 * i * PAGE), b"%08d" % (2 * i)))
        made.append((mmap.mmap(-1, PAGE, shared | mmap.MAP_ANONYMOUS, both), b"shared %d" % i))
    for memory, text in made:
        memory[: len(text)] = text

    def look():
        for i, (memory, text) in enumerate(made):
            expect(f"area {i}", memory[: len(text)], text)

    return look


def threads(number):
    threading.stack_size(256 * 1024)
    reader, writer = os.pipe()
    lock = threading.Lock()
    lock.acquire()
    polled, _ = os.pipe()
    went = array.array("q", [0])
    waits = [
        lambda: time.sleep(10**6),
        lambda: os.read(reader, 1),
        lambda: lock.acquire() and lock.release(),
        lambda: select.select([polled], [], [], 10**6),
    ]

    def run(wait):
        wait()
        went[0] += 1

    for i in range(number):
        threading.Thread(target=run, args=(waits[i % 4],), daemon=True).start()

    def look():
        expect("number of threads", len(os.listdir("/proc/self/task")), number + 1)
        expect("number of threads that went on", went[0], 0)

    return look


_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
needed = 3 * count + 100
resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(needed, hard)))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.makedirs(directory, exist_ok=True)
look = {f.__name__: f for f in (none, descriptors, connections, areas, threads)}[kind](count)


def write(name, text):
    with open(place(f".{name}"), "w") as file:
        file.write(text)
    os.rename(place(f".{name}"), place(name))


write("ready", "")
while True:
    signal.sigwait([signal.SIGUSR1])
    try:
        look()
        write("answer", "ok")
    except Exception as problem:
        write("answer", f"{type(problem).__name__}: {problem}")
