# Shares three pages of memory with a child, watches a pipe with an epoll, and waits for a connection: the number of its descriptor is
# taken already.
import mmap
import os
import select
import socket
import time

memory = mmap.mmap(-1, 3 * 4096)
for page in range(3):
    memory[page * 4096] = 1 + page
if os.fork() == 0:
    time.sleep(1000000)
reader, writer = os.pipe()
watch = select.epoll()
watch.register(reader)
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/watcher")
server.listen()
server.accept()
