# Has a trigger for pressure and waits for it; at SIGUSR1 it says whether it has it still (EBUSY: one at most).
# pressure.py OUTPUT
import errno
import os
import select
import signal
import sys

TRIGGER = b"some 500000 2000000\0"
output = sys.argv[1]
file = os.open("/proc/pressure/memory", os.O_RDWR)
os.write(file, TRIGGER)
waiting = select.poll()
waiting.register(file, select.POLLPRI)


def say(words):
    with open(output, "a") as lines:
        lines.write(words + "\n")


def look(*_):
    try:
        os.write(file, TRIGGER)
        say("had none")
    except OSError as error:
        say(errno.errorcode[error.errno])


signal.signal(signal.SIGUSR1, look)
say("ready")
while True:
    for _, events in waiting.poll():
        if events & select.POLLERR:
            say("error")
            sys.exit(1)
