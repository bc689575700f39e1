"""lease.py FILE: nobody opens FILE, which execve(2) does, until there is a FILE.free: a lease is in the way."""

import fcntl
import os
import signal
import sys
import time

path = sys.argv[1]
# The kernel asks for it back by this signal.
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(path, os.O_RDONLY)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("ready", flush=True)
while not os.path.exists(path + ".free"):
    time.sleep(0.1)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
