# SPDX-License-Identifier: Apache-2.0
"""The server of README.md, in Python with asyncio: python3 sums.py PORT"""

import asyncio
import sys

SIZE = 256
table = [0] * SIZE
clients = set()
additions = 0
kept = []


def total():
    return sum(value * (i + 1) for i, value in enumerate(table)) % 1_000_003


async def serve(reader, writer):
    global additions
    clients.add(writer)
    try:
        async for line in reader:
            number = int(line.split()[1])
            table[number % SIZE] += number
            additions += 1
            writer.write(f'sum {number} {additions} {total()}\n'.encode())
            await writer.drain()
    finally:
        clients.discard(writer)
        writer.close()


async def tick():
    global kept
    ticks = 0
    while True:
        await asyncio.sleep(0.5)
        kept = [f'{ticks} {i} {table[i % SIZE]}' for i in range(500)]
        ticks += 1
        for writer in clients:
            writer.write(f'tick {ticks} {total()} {len(kept)}\n'.encode())


async def main():
    server = await asyncio.start_server(serve, '0.0.0.0', int(sys.argv[1]))
    async with server:
        await asyncio.gather(server.serve_forever(), tick())


asyncio.run(main())
