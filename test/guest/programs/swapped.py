"""Has memory of several kinds whose content can be told from a number, and says what it has when asked.

swapped.py OUT: makes it, forks a child that shares the private part, and writes `ready` and both pids to OUT.
Upon SIGHUP each of the two writes OUT.PID: a line for each part with the hash of what it has now.
swapped.py expected: writes the lines that are right.
"""

import hashlib
import mmap
import os
import random
import signal
import sys

MIB = 1 << 20
PRIVATE, ZEROS, SHARED, MEMFD, TMPFS = 24 * MIB, 4 * MIB, 6 * MIB, 6 * MIB, 6 * MIB
FILE = "/dev/shm/swapped"
LOOSE = "/dev/shm/loose"


def content(part, size):
    return random.Random(part).randbytes(size)


def parts():
    return [
        ("private", content("private", PRIVATE)),
        ("zeros", bytes(ZEROS)),
        ("shared", content("shared", SHARED)),
        ("memfd", content("memfd", MEMFD)),
        ("tmpfs", content("tmpfs", TMPFS)),
    ]


def line(name, data):
    return f"{name} {len(data)} {hashlib.sha256(data).hexdigest()}\n"


def make():
    memory = {}
    for name, data in parts():
        if name in ("private", "zeros"):
            area = mmap.mmap(-1, len(data), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        elif name == "shared":
            area = mmap.mmap(-1, len(data), mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        else:
            fd = os.memfd_create("part") if name == "memfd" else os.open(FILE, os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(fd, len(data))
            area = mmap.mmap(fd, len(data))
        area[:] = data
        memory[name] = area
    with open(LOOSE, "wb") as loose:
        loose.write(content("loose", MIB))
    return memory


def serve(out, memory):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    while True:
        signal.sigwait([signal.SIGHUP])
        with open(f"{out}.{os.getpid()}.new", "w") as answer:
            for name, area in memory.items():
                answer.write(line(name, area[:]))
        os.rename(f"{out}.{os.getpid()}.new", f"{out}.{os.getpid()}")


if sys.argv[1] == "expected":
    sys.stdout.write("".join(line(name, data) for name, data in parts()))
else:
    kept = make()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    child = os.fork()
    if child != 0:
        with open(sys.argv[1], "w") as ready:
            ready.write(f"ready {os.getpid()} {child}\n")
    serve(sys.argv[1], kept)
