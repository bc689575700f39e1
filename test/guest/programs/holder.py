"""Holds memory and files with content of its own, and keeps them. holder.py DIRECTORY SEED

Where the kernel balances memory between nodes, it waits until the kernel has gone through its memory for that (and taken pages away: PROT_NONE), and
touches it no more. DIRECTORY/ready then has its pid. At each SIGUSR1 it looks at everything and appends "whole N" to DIRECTORY/found, or what is not; meanwhile it
appends a line to DIRECTORY/log, never synchronised.
"""
import hashlib
import mmap
import os
import random
import re
import signal
import sys
import time

directory, seed = sys.argv[1:]
MIB = 1 << 20


def pattern(what, size):
    return random.Random(f"{seed} {what}").randbytes(size)


def scans():
    """How often the kernel has gone through this process's memory to see which node uses it."""
    with open("/proc/self/sched") as file:
        return int(re.search(r"^mm->numa_scan_seq\s*:\s*(\d+)", file.read(), re.M)[1])


def file_with(fd, what, size):
    os.write(fd, pattern(what, size))
    return fd


def content(fd, size):
    return os.pread(fd, size + 1, 0)


memory = mmap.mmap(-1, 32 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(pattern("memory", 32 * MIB))
shared = mmap.mmap(-1, MIB)
shared.write(pattern("shared", MIB))
gone_name = os.path.join(directory, "gone")
files = {
    "memfd": (file_with(os.memfd_create("holder"), "memfd", MIB), MIB),
    "deleted": (file_with(os.open(gone_name, os.O_RDWR | os.O_CREAT, 0o600), "deleted", MIB), MIB),
    "dirty": (file_with(os.open(os.path.join(directory, "dirty"), os.O_RDWR | os.O_CREAT, 0o600), "dirty", MIB), MIB),
    "tmpfs": (file_with(os.open(f"/dev/shm/holder-{seed}", os.O_RDWR | os.O_CREAT, 0o600), "tmpfs", MIB), MIB),
}
os.unlink(gone_name)
log = os.open(os.path.join(directory, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)


def find():
    if memory[:] != pattern("memory", 32 * MIB):
        return "memory is not what it was"
    if shared[:] != pattern("shared", MIB):
        return "shared memory is not what it was"
    for name, (fd, size) in files.items():
        if content(fd, size) != pattern(name, size):
            return f"{name} is not what it was"
    return "whole"


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.listdir(directory)
if os.path.exists("/sys/devices/system/node/node1"):
    # Balancing looks at a task while that computes.
    before = scans()
    while scans() < before + 2:
        sum(range(100_000))
with open(os.path.join(directory, "ready"), "w") as ready:
    ready.write(f"{os.getpid()}\n")
count = lines = 0
while True:
    lines += 1
    os.write(log, f"line {lines}\n".encode())
    if signal.sigtimedwait([signal.SIGUSR1], 1) is not None:
        count += 1
        with open(os.path.join(directory, "found"), "a") as found:
            found.write(f"{find()} {count}\n")
