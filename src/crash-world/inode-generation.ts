import koffi from 'koffi';

/** FS_IOC_GETVERSION of include/uapi/linux/fs.h. */
const FS_IOC_GETVERSION = 0x80087601;

const ioctl = koffi.load('libc.so.6').func('int ioctl(int fd, unsigned long request, _Out_ uint32_t *value)');

/** The generation of an open file's inode: it differs when a number is used again. Undefined where there is none. */
export function inodeGeneration(fd: number): number | undefined {
  const value: [number] = [0];
  const result: unknown = ioctl(fd, FS_IOC_GETVERSION, value);
  return result === 0 ? value[0] : undefined;
}
