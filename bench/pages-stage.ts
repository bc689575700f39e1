import { captureProcesses } from '../src/capture/index.ts';
import { type PageSource, writeImages } from '../src/criu/images/index.ts';
import { openKernel } from '../src/vmcore/open.ts';

/**
 * What `otherworld extract` does, with the time of its page writing alone: `pages-stage.ts VMCORE PID
 * DIRECTORY` prints seconds, bytes and the number of contiguous runs as JSON.
 */
function main([file = '', pid = '', directory = '']: readonly string[]): void {
  const kernel = openKernel(file);
  const { groups } = captureProcesses(kernel, { roots: [Number(pid)], includeDescendants: true });
  const written = { seconds: 0, bytes: 0, runs: 0 };
  const timed: PageSource = {
    writeRuns(fd, runs) {
      const start = performance.now();
      const bytes = kernel.physical.writeRuns(fd, runs);
      written.seconds += (performance.now() - start) / 1000;
      written.bytes += bytes;
      written.runs += runs.length;
      return bytes;
    },
  };
  for (const group of groups) writeImages(group, timed, directory);
  kernel.close();
  console.log(JSON.stringify(written));
}

main(process.argv.slice(2));
