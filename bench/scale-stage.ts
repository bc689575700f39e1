import { readFileSync } from 'node:fs';
import { captureProcesses } from '../src/capture/index.ts';
import { writeImages } from '../src/criu/images/index.ts';
import { openKernel } from '../src/vmcore/open.ts';

/**
 * What `otherworld extract` does with one process, with the time of its capture and of its images:
 * `scale-stage.ts VMCORE PID DIRECTORY` prints seconds of processor time, which depend less on what else runs
 * than those of a clock, and the memory of its own that it has then, as JSON. A process that does not come
 * back is an error.
 */
function main([file = '', pid = '', directory = '']: readonly string[]): void {
  const kernel = openKernel(file);
  const begun = process.cpuUsage();
  const { groups, refused } = captureProcesses(kernel, { roots: [Number(pid)], includeDescendants: true });
  const captured = process.cpuUsage();
  const afterCapture = ownMebibytes();
  for (const { reasons } of refused) throw new Error(`process ${pid} ${reasons.join('; ')}`);
  for (const group of groups) writeImages(group, kernel.physical, directory);
  const written = process.cpuUsage();
  const mebibytes = Math.max(afterCapture, ownMebibytes());
  kernel.close();
  const seconds = (from: NodeJS.CpuUsage, to: NodeJS.CpuUsage): number =>
    (to.user + to.system - from.user - from.system) / 1e6;
  const result = { capture: seconds(begun, captured), images: seconds(captured, written) };
  console.log(JSON.stringify({ ...result, mebibytes }));
}

/** Memory that is this program's own: not the dump, which is mapped. */
function ownMebibytes(): number {
  const [, kibibytes] = /^RssAnon:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1')) ?? [];
  return Number(kibibytes) / 1024;
}

main(process.argv.slice(2));
