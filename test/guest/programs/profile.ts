// In a guest: writes the running kernel's profile to the file of the first argument.
import { writeProfile } from '../../../src/vmcore/profile.ts';
import { takeProfile } from '../../../src/vmcore/take-profile.ts';

writeProfile(process.argv[2] ?? 'profile', takeProfile());
