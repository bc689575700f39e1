"""Sits in many system calls at once, or in those that it is given, one process each.

Says in a file, /run/in-calls or the one that is its first argument, which PID is in which: `unlink-frozen 812`. What a
call came to is in /var/tmp/in-calls-NAME.

The file system at /srv/frozen is frozen, so that whoever wants to change it waits. A buffer that nobody fills
(userfaultfd) holds the directory /srv/locked under its lock, and a reader in the middle of its read.
"""
import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
FROZEN, LOCKED = "/srv/frozen", "/srv/locked"
FIFREEZE = 0xC0045877
UFFDIO_API, UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00
SYS_GETDENTS64, SYS_USERFAULTFD = 217, 323
EXCLUSIVE = os.O_CREAT | os.O_EXCL | os.O_WRONLY
kept = []


def unfilled():
    """Address of a page that a thread waits for when it touches it, in the kernel as well."""
    fd = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC)
    fcntl.ioctl(fd, UFFDIO_API, struct.pack("QQQ", 0xAA, 0, 0))
    page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fcntl.ioctl(fd, UFFDIO_REGISTER, struct.pack("QQQQ", address, 4096, 1, 0))
    kept.append((fd, page))
    return ctypes.c_void_p(address)


def locked_directory():
    fd = os.open(LOCKED, os.O_RDONLY)
    libc.syscall(SYS_GETDENTS64, fd, unfilled(), 4096)


def read_file():
    libc.read(os.open(f"{LOCKED}/a", os.O_RDONLY), unfilled(), 4)


def write_file():
    libc.write(os.open(f"{LOCKED}/b", os.O_WRONLY), unfilled(), 4)


def one_shot():
    ends = os.pipe()
    epoll = select.epoll()
    epoll.register(ends[0], select.EPOLLIN | select.EPOLLONESHOT)
    epoll.poll()


def accepting():
    listener = socket.create_server(("127.0.0.1", 0))
    listener.accept()


def waiting():
    if os.fork() == 0:
        signal.pause()
    os.wait()


def reading_always():
    fd = os.open("/dev/zero", os.O_RDONLY)
    while True:
        os.read(fd, 1 << 20)


frozen_file = None
calls = {
    "write-frozen": lambda: os.write(frozen_file, b"more"),
    "ftruncate-frozen": lambda: os.ftruncate(frozen_file, 1),
    "rename-frozen": lambda: os.rename(f"{FROZEN}/a", f"{FROZEN}/z"),
    "unlink-frozen": lambda: os.unlink(f"{FROZEN}/b"),
    "mkdir-frozen": lambda: os.mkdir(f"{FROZEN}/new"),
    "rmdir-frozen": lambda: os.rmdir(f"{FROZEN}/empty"),
    "symlink-frozen": lambda: os.symlink("x", f"{FROZEN}/link"),
    "link-frozen": lambda: os.link(f"{FROZEN}/a", f"{FROZEN}/second"),
    "mknod-frozen": lambda: os.mkfifo(f"{FROZEN}/fifo"),
    "open-frozen": lambda: os.open(f"{FROZEN}/exclusive", EXCLUSIVE),
    "getdents64-locked": locked_directory,
    "unlink-locked": lambda: os.unlink(f"{LOCKED}/a"),
    "mkdir-locked": lambda: os.mkdir(f"{LOCKED}/new"),
    "rename-locked": lambda: os.rename(f"{LOCKED}/b", f"{LOCKED}/z"),
    "open-locked": lambda: os.open(f"{LOCKED}/exclusive", EXCLUSIVE),
    "read-unfilled": read_file,
    "write-unfilled": write_file,
    "epoll_wait": one_shot,
    "accept4": accepting,
    "wait4": waiting,
    "openat-fifo": lambda: os.open(f"{LOCKED}/fifo", os.O_RDONLY),
    "nanosleep": lambda: time.sleep(100000),
    "read-always": reading_always,
}


def prepare_locked():
    os.makedirs(LOCKED)
    os.mkfifo(f"{LOCKED}/fifo")
    for name in ("a", "b"):
        with open(f"{LOCKED}/{name}", "w") as file:
            file.write("text")


def prepare_frozen():
    global frozen_file
    os.makedirs(FROZEN)
    image = "/srv/image"
    subprocess.run(f"truncate -s 16M {image} && mkfs.ext4 -q {image} && mount -o loop {image} {FROZEN}", shell=True, check=True)
    os.mkdir(f"{FROZEN}/empty")
    for name in ("a", "b"):
        with open(f"{FROZEN}/{name}", "w") as file:
            file.write("text")
    frozen_file = os.open(f"{FROZEN}/a", os.O_WRONLY)
    fcntl.ioctl(os.open(FROZEN, os.O_RDONLY), FIFREEZE, 0)


def waits(pid):
    """Whether a process has come to rest in the kernel."""
    with open(f"/proc/{pid}/stack") as stack, open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] in "SD" and "[<0>]" in stack.read()


def make(name):
    """Makes a call, and says what it came to."""
    try:
        calls[name]()
        outcome = "done"
    except OSError as error:
        outcome = str(error)
    with open(f"/var/tmp/in-calls-{name}", "w") as said:
        said.write(outcome + "\n")
    os._exit(0)


place = sys.argv[1] if len(sys.argv) > 1 else "/run/in-calls"
wanted = sys.argv[2:] or list(calls)
if not os.path.exists(LOCKED):
    prepare_locked()
if any(name.endswith("-frozen") for name in wanted):
    prepare_frozen()
with open(f"{place}.new", "w") as said:
    for name in wanted:
        pid = os.fork()
        if pid == 0:
            make(name)
        said.write(f"{name} {pid}\n")
        while not name.endswith("always") and not waits(pid):
            time.sleep(0.1)
os.rename(f"{place}.new", place)
while True:
    signal.pause()
