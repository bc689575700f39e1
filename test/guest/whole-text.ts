/**
 * A script that prints a text file, and fails until all of it is there: a file that is being written is there
 * before it has anything. Its writer ends it with the end of a line.
 */
export function wholeText(path: string): string {
  return `[ -z "$(tail -c1 ${path})" ] && grep . ${path}`;
}
