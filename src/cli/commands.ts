import type { Commands } from './program.ts';

/** The commands of a machine on which Otherworld is installed. */
export const installedCommands: Commands = {
  arm: async () => (await import('./arm.ts')).registerArm,
  disarm: async () => (await import('./disarm.ts')).registerDisarm,
  status: async () => (await import('./status.ts')).registerStatus,
  protect: async () => (await import('./protect.ts')).registerProtect,
  unprotect: async () => (await import('./unprotect.ts')).registerUnprotect,
  check: async () => (await import('./check.ts')).registerCheck,
  doctor: async () => (await import('./doctor.ts')).registerDoctor,
  report: async () => (await import('./report.ts')).registerReport,
  inspect: async () => (await import('./inspect.ts')).registerInspect,
  extract: async () => (await import('./extract.ts')).registerExtract,
};
