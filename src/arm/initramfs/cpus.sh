# Read by /init as one of its settings, before a driver is loaded: starts the CPUs that the kernel left alone (maxcpus=1).
# In a crash kernel Linux 6.1 uses only the first queue of a disk, and the interrupt of that queue belongs to whichever CPUs come
# first in the machine's topology (blk_mq_alloc_tag_set, irq_create_affinity_masks). If none of these runs, the first request
# waits for ever.
for otherworld_cpu in /sys/devices/system/cpu/cpu[0-9]*/online; do
    # The only CPU has no such file.
    [ -e "$otherworld_cpu" ] || continue
    read -r otherworld_state <"$otherworld_cpu"
    # The crash world says in its report which did not start.
    [ "$otherworld_state" = 1 ] || echo 1 >"$otherworld_cpu" || :
done
unset otherworld_cpu otherworld_state
