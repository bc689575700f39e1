import { cstring, struct } from '../vmcore/view.ts';

/** `struct uts_namespace` (include/linux/utsname.h). */
export const utsNamespaceStruct = struct('uts_namespace', {
  nodename: cstring.at('name.nodename'),
  version: cstring.at('name.version'),
  machine: cstring.at('name.machine'),
  domainname: cstring.at('name.domainname'),
});
