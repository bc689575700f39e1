import { addressOf, s32, struct } from '../vmcore/view.ts';

/** `struct net_device` (include/linux/netdevice.h). */
export const netDeviceStruct = struct('net_device', {
  ifindex: s32,
  name: addressOf('name'),
  dev_list: addressOf('dev_list'),
});
