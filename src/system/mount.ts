import { checked, libcFunction } from './libc.ts';

const mountCall = libcFunction<[source: string, target: string, type: string, flags: number, data: string]>(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
);

/** mount(2). @param flags MS_*. @throws SystemCallError */
export function mount(source: string, target: string, type: string, flags: number, data: string): void {
  checked('mount', mountCall(source, target, type, flags, data));
}
