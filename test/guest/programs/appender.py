"""Appends numbered lines to a file. When `FILE.ready` is there, it waits for SIGUSR1. If the disk has been made slow meanwhile (io.max of its cgroup),
it is caught in the middle of write(2): the next line needs the last page of the file, which is not in memory.
"""
import os
import signal
import sys
import time

path = sys.argv[1]
file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
lines = 0


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])


def append():
    global lines
    lines += 1
    line = b"line %d\n" % lines
    if os.write(file, line) != len(line):
        sys.exit("not a whole line")
    time.sleep(0.5)


def forget():
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


# Once with everything that is needed later, so that the program itself is in memory.
append()
forget()
append()
forget()
os.close(os.open(path + ".ready", os.O_WRONLY | os.O_CREAT))
signal.sigwait([signal.SIGUSR1])
while True:
    append()
