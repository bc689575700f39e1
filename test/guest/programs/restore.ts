// In a guest: restores the images in the directory of the first argument as the crash world does; its result
// is the output.
import { restoreImages } from '../../../src/criu/restore/index.ts';

const result = await restoreImages(process.argv[2] ?? '.');
console.log(JSON.stringify(result, undefined, 1));
process.exitCode = result.restored ? 0 : 1;
