// A Node program with a crash procedure; prints what it is told, and ends after so many milliseconds.
import { onKernelCrash } from '../../sdk/node/otherworld.js';

const timer = setInterval(() => {}, 1000);
onKernelCrash(
  async (incident) => {
    await new Promise((resolve) => setTimeout(resolve, 100));
    console.log(JSON.stringify(incident));
    setTimeout(() => clearInterval(timer), Number(process.argv[2] ?? 200));
  },
  { signal: 'SIGUSR2', timeLimitMilliseconds: 2500 },
);
console.log('{"ready":0}');
