"""A process that fills SIZE MiB and sleeps: `large-process.py SIZE huge|scattered READY`.

READY is a file that it makes when it is done.
huge: as the kernel gives memory to anybody, in huge pages where it has them.
scattered: no two neighbouring pages are neighbours in physical memory, the worst that capture can meet.
"""

import mmap
import sys
import time

PAGE = 4096
size = int(sys.argv[1]) << 20
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
if sys.argv[2] == "scattered":
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for first in 0, PAGE:
        for at in range(first, size, 2 * PAGE):
            memory[at] = 0xA5
else:
    block = bytes([0xA5]) * (1 << 20)
    for at in range(0, size, len(block)):
        memory[at : at + len(block)] = block
with open(sys.argv[3], "w"):
    pass
while True:
    time.sleep(86400)
