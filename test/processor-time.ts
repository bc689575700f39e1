/**
 * Milliseconds of processor time that this process has used: what a walk that must end takes, however busy
 * the machine is.
 */
export function processorMilliseconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
