import { readFileSync } from 'node:fs';
import { answerRoom } from './room-for-images.ts';

process.stdout.write(JSON.stringify(answerRoom(JSON.parse(readFileSync(0, 'utf8')))));
