import { pointer, struct, ulongNumber } from '../../../vmcore/view.ts';

/** `struct vdso_image` (arch/x86/include/asm/vdso.h): the pages that processes map as `[vdso]`. */
export const vdsoImageStruct = struct('vdso_image', { data: pointer, size: ulongNumber });
