import { readFileSync } from 'node:fs';
import { answerRoom } from './images-need.ts';

process.stdout.write(JSON.stringify(answerRoom(JSON.parse(readFileSync(0, 'utf8')))));
