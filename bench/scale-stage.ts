import { captureProcesses } from '../src/capture/index.ts';
import { writeImages } from '../src/criu/images/index.ts';
import { openKernel } from '../src/vmcore/open.ts';

/**
 * What `otherworld extract` does with one process, with the time of its capture and of its images:
 * `scale-stage.ts VMCORE PID DIRECTORY` prints seconds and the most memory in use as JSON. A process that
 * does not come back is an error.
 */
function main([file = '', pid = '', directory = '']: readonly string[]): void {
  const kernel = openKernel(file);
  const begun = performance.now();
  const { groups, refused } = captureProcesses(kernel, { roots: [Number(pid)], includeDescendants: true });
  const captured = performance.now();
  for (const { reasons } of refused) throw new Error(`process ${pid} ${reasons.join('; ')}`);
  for (const group of groups) writeImages(group, kernel.physical, directory);
  const written = performance.now();
  kernel.close();
  const seconds = { capture: (captured - begun) / 1000, images: (written - captured) / 1000 };
  console.log(JSON.stringify({ ...seconds, mebibytes: process.resourceUsage().maxRSS / 1024 }));
}

main(process.argv.slice(2));
