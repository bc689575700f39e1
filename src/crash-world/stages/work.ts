import { join } from 'node:path';
import type { Manifest } from '../../config/manifest.ts';
import type { NumberRange } from '../../linux/pid.ts';
import type { IncidentReport } from '../../report/schema.ts';
import type { IncidentPlace } from '../incident/incident-place.ts';

/** What every stage of a resurrection has, whatever failed before it. */
export interface Work {
  readonly report: IncidentReport;
  /** Saves the report as it is. */
  readonly save: () => void;
  readonly manifest: Manifest;
  readonly place: IncidentPlace;
  /** When the dead kernel panicked: nanoseconds since 1970, by its own clock. */
  readonly panicAt: bigint;
  /** Numbers for the processes that this program starts; undefined if the dead world's are not known. */
  readonly numbers: NumberRange | undefined;
}

/** The directory of this incident's images. */
export function imagesDirectory({ manifest, place }: Pick<Work, 'manifest' | 'place'>): string {
  return join(manifest.config.images.directory, place.id);
}
