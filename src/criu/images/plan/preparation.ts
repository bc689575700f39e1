import * as z from 'zod';

/**
 * What is to be made and to be checked before `criu restore`; lies next to CRIU's images, which do not know
 * of it.
 */
export const PREPARATION = 'preparation.json';
/** The content of the files that are to be made, one after the other. */
export const CONTENT = 'made.raw';

/** How a file is recognised: `FileIdentity` of the model. */
export const fileIdentity = z.object({
  fileSystem: z.string(),
  onDisk: z.boolean(),
  inode: z.number(),
  generation: z.number(),
  mode: z.number(),
  uid: z.number(),
  gid: z.number(),
  sizeBytes: z.number(),
  rdev: z.number(),
});

/** The value is in Base64. */
const attributes = z.array(z.object({ name: z.string(), value: z.base64() }));

const chunk = z.object({ offset: z.number(), length: z.number() });

export const preparationSchema = z.object({
  version: z.literal(2),
  directories: z.array(
    z.object({ path: z.string(), mode: z.number(), uid: z.number(), gid: z.number(), attributes }),
  ),
  /**
   * The chunks lie one after the other in the content file, from `contentOffset` on; `offset` is where they
   * belong.
   */
  files: z.array(
    z.object({
      path: z.string(),
      identity: fileIdentity,
      attributes,
      accessedMicroseconds: z.number(),
      modifiedMicroseconds: z.number(),
      contentOffset: z.number(),
      chunks: z.array(chunk),
    }),
  ),
  symlinks: z.array(z.object({ path: z.string(), target: z.string(), uid: z.number(), gid: z.number() })),
  names: z.array(z.object({ path: z.string(), of: z.string() })),
  checks: z.array(z.object({ path: z.string(), identity: fileIdentity })),
  /** Names that sockets are bound to again, and where these have to lead, through links of directories. */
  socketNames: z.array(z.object({ name: z.string(), path: z.string() })),
});

export type Preparation = z.infer<typeof preparationSchema>;
export type PreparedAttributes = z.infer<typeof attributes>;
