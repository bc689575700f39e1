// Names that others look for. Apart from `index.ts`, so that knowing them loads nothing of what restores.

/** Name of CRIU's log in the images' directory. */
export const RESTORE_LOG = 'restore.log';

/** How a relay is called: the first of its script's arguments. */
export const RELAY_NAME = 'otherworld-log';
/**
 * The sockets that the journal has taken up itself, a line `socket:[INODE]` for each; made when that is
 * decided.
 */
export const STREAMS_TAKEN = '/run/otherworld/streams-taken';
/** The same list while it is made. */
export const STREAMS_GIVEN = `${STREAMS_TAKEN}.part`;

/**
 * The interface that has the addresses of connections while they are made; init.sh, or the unit that restores
 * into sandboxes, takes away what is left.
 */
export const INTERFACE = 'otherworld0';
/**
 * The routing table of that interface in a system that runs: who takes away the one takes away the rules of
 * the other.
 */
export const LENT_TABLE = 0x6f74_7730;
