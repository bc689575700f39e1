/** Everything that Otherworld keeps over a crash: protection rules, incidents, images; root only. */
export const STATE_DIRECTORY = '/var/lib/otherworld';
/** One directory per incident. */
export const INCIDENTS_DIRECTORY = `${STATE_DIRECTORY}/incidents`;
/** The rules that say which processes are protected; read by the crash world from the disk. */
export const PROTECTION_PATH = `${STATE_DIRECTORY}/protection.json`;
/** Parts of crash initramfs, by the hash of what they were built from; may be deleted at any time. */
export const CACHE_DIRECTORY = '/var/cache/otherworld';
/** State of this boot. In the crash world a tmpfs of its own, set up by the crash initramfs. */
export const RUN_DIRECTORY = '/run/otherworld';
/** What `arm` loaded, for `status`. */
export const ARMED_PATH = `${RUN_DIRECTORY}/armed.json`;
/** The squashfs with Node.js, CRIU and their libraries, mounted by the crash initramfs. */
export const RUNTIME_DIRECTORY = `${RUN_DIRECTORY}/runtime`;
/** Where the crash initramfs puts bundle, profile, configuration and init. */
export const PAYLOAD_DIRECTORY = `${RUN_DIRECTORY}/payload`;
/** Kernel parameter by which user space tells the crash world from an ordinary boot. */
export const CRASH_WORLD_PARAMETER = 'otherworld.crash-world';
