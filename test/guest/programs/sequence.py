"""Two ends of a pipe: the first writes numbers in pieces far larger than the pipe, the second checks their order."""
import os
import sys
import time

if sys.argv[1] == "write":
    n = 0
    while True:
        data = b"".join(b"%09d\n" % (n + i) for i in range(20000))
        n += 20000
        while data:
            data = data[os.write(1, data):]


out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)


def tell(line):
    """At one place of the file and by one call, which may be made twice."""
    os.pwrite(out, b"%-40s\n" % line.encode(), 0)


expected = 0
rest = b""
while True:
    rest += os.read(0, 3000)
    while len(rest) >= 10:
        if int(rest[:10]) != expected:
            tell(f"{rest[:10]} instead of {expected}")
            sys.exit(1)
        expected += 1
        rest = rest[10:]
    tell(f"{expected}")
    time.sleep(0.5)
