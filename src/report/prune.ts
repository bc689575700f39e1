import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { INCIDENTS_DIRECTORY } from '../config/paths.ts';
import type { Config } from '../config/schema.ts';
import { lockDirectory } from '../system/directory-lock.ts';
import { messageOf } from '../system/thrown.ts';
import { pathProblem } from '../system/trusted-path.ts';
import { endImages, removeTree } from './images.ts';
import { incidentTime, listIncidents, loadReport } from './incident.ts';
import type { IncidentReport } from './schema.ts';

const DAY = 86_400_000;

/** How long incidents and images are kept; ages are in days, 0 is no limit. */
export interface Limits {
  /** Incidents, with their images; the newest. */
  readonly incidents: number;
  readonly incidentsMaxAgeDays: number;
  readonly imagesMaxAgeDays: number;
  /**
   * Incidents younger than these minutes stay in any case: the protection against crash loops counts them.
   */
  readonly youngMinutes: number;
  readonly keepImages: Config['images']['keep'];
}

/** The limits that the configuration sets. */
export function configuredLimits(config: Config): Limits {
  return {
    incidents: config.incidents.keep,
    incidentsMaxAgeDays: config.incidents['max-age-days'],
    imagesMaxAgeDays: config.images['max-age-days'],
    youngMinutes: config['crash-loop']['within-minutes'],
    keepImages: config.images.keep,
  };
}

/** Where incidents and images are, which incident is still at work, and the time. */
export interface Scene {
  readonly images: string;
  readonly incidents?: string;
  /** Its directories are in use. */
  readonly unfinished?: string | undefined;
  /** Milliseconds since 1970. */
  readonly now?: number;
}

/** What was removed. */
export interface Pruned {
  /** Ids of incidents that are gone, with their images. */
  readonly incidents: readonly string[];
  /** Ids of incidents whose images are gone. */
  readonly images: readonly string[];
  readonly problems: readonly string[];
}

/**
 * Removes incidents and images that have come to their end: those that are too many or too old, and images
 * that should have been removed when their incident settled, which a machine that was reset in between never
 * did. The latest incident always stays.
 * @throws StateError if another process prunes for more than a minute, or others can write to the directory
 * of incidents
 */
export function prune(limits: Limits, scene: Scene): Pruned {
  const { images, incidents = INCIDENTS_DIRECTORY, unfinished, now = Date.now() } = scene;
  using _lock = lockDirectory(incidents);
  const known = listIncidents(incidents);
  const age = (id: string): number => now - incidentTime(id);
  const isOld = (id: string, days: number): boolean => days > 0 && age(id) > days * DAY;
  const ended = known
    .slice(0, -1)
    .filter((id) => id !== unfinished && age(id) > limits.youngMinutes * 60_000)
    .filter(
      (id) => known.indexOf(id) < known.length - limits.incidents || isOld(id, limits.incidentsMaxAgeDays),
    );
  const imaged = listIncidents(images).filter((id) => id !== unfinished);
  const withoutImages = imaged.filter((id) => ended.includes(id) || isOld(id, limits.imagesMaxAgeDays));
  const problems = withoutImages.flatMap((id) => removeOne(images, id));
  const gone = ended.filter((id) => {
    if (existsSync(join(images, id))) return false;
    problems.push(...removeOne(incidents, id));
    return !existsSync(join(incidents, id));
  });
  for (const id of imaged.filter((one) => !withoutImages.includes(one))) {
    problems.push(...endImages(reportOf(id, incidents), images, incidents, limits.keepImages));
  }
  return { incidents: gone, images: imaged.filter((id) => !existsSync(join(images, id))), problems };
}

/**
 * Removes one incident with its images.
 * @returns what did not work, a sentence each
 */
export function removeIncident(
  id: string,
  images: string,
  incidents: string = INCIDENTS_DIRECTORY,
): string[] {
  using _lock = lockDirectory(incidents);
  const problems = removeOne(images, id);
  return problems.length > 0 ? problems : removeOne(incidents, id);
}

function removeOne(parent: string, id: string): string[] {
  const directory = join(parent, id);
  if (!existsSync(directory)) return [];
  const distrusted = pathProblem(parent);
  if (distrusted !== undefined) return [`${directory} is left alone: ${distrusted}`];
  try {
    removeTree(directory);
    return [];
  } catch (error) {
    return [`${directory} cannot be removed: ${messageOf(error)}`];
  }
}

/** Without a report nothing is known of any group. */
function reportOf(id: string, incidents: string): Pick<IncidentReport, 'id' | 'processes'> {
  try {
    return loadReport(id, incidents);
  } catch {
    return { id, processes: [] };
  }
}
