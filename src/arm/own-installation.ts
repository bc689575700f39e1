import { lstatSync, readdirSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { INSTALLATION } from '../config/installation.ts';
import { ownershipProblem, pathProblem } from '../system/trusted-path.ts';

/** Nothing of it is run. */
const NOT_RUN = '.git';

/**
 * The first file of a directory, those below it included, that somebody else than root can change; undefined
 * if there is none.
 */
export function treeProblem(directory: string): string | undefined {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    // A link is followed: what it leads to is run as well.
    const problem = entry.isSymbolicLink() ? pathProblem(path) : problemOf(path);
    if (problem !== undefined) return problem;
    const below = entry.isDirectory() && entry.name !== NOT_RUN ? treeProblem(path) : undefined;
    if (below !== undefined) return below;
  }
  return undefined;
}

function problemOf(path: string): string | undefined {
  const problem = ownershipProblem(lstatSync(path));
  return problem === undefined ? undefined : `${path} ${problem}`;
}

/**
 * Why root must not run this installation by itself, at each boot: somebody else can change what is run.
 * @param programs what is started, besides the installation's own files
 * @returns a sentence that begins with the path of a file or directory; undefined if all is root's
 */
export function installationProblem(
  installation: string = INSTALLATION,
  programs: readonly string[] = [process.execPath, realpathSync(process.argv[1] ?? process.execPath)],
): string | undefined {
  for (const path of [installation, ...programs]) {
    const problem = pathProblem(path);
    if (problem !== undefined) return problem;
  }
  return treeProblem(installation);
}

/** What to do about it. */
export const INSTALLATION_REMEDY =
  'put it where only root can write: cp -a it to /opt/otherworld, chown -R root:root /opt/otherworld, chmod -R go-w /opt/otherworld';
