// SPDX-License-Identifier: Apache-2.0
// The server of README.md, in Node.js: node sums.mjs PORT
import { createServer } from 'node:net';

const SIZE = 256;
const table = new Array(SIZE).fill(0);
const clients = new Set();
let additions = 0;
let ticks = 0;
let kept = [];

const sum = () => table.reduce((total, value, i) => (total + value * (i + 1)) % 1_000_003, 0);

function answer(socket, line) {
  const number = Number(line.split(' ')[1]);
  table[number % SIZE] += number;
  additions += 1;
  socket.write(`sum ${number} ${additions} ${sum()}\n`);
}

const server = createServer((socket) => {
  let text = '';
  clients.add(socket);
  socket.on('data', (data) => {
    const lines = (text + data).split('\n');
    text = lines.pop();
    for (const line of lines) answer(socket, line);
  });
  socket.on('close', () => clients.delete(socket));
  socket.on('error', (error) => console.error(error.message));
});

setInterval(() => {
  kept = Array.from({ length: 500 }, (_, i) => `${ticks} ${i} ${table[i % SIZE]}`);
  ticks += 1;
  for (const socket of clients) socket.write(`tick ${ticks} ${sum()} ${kept.length}\n`);
}, 500);

server.listen(Number(process.argv[2]));
