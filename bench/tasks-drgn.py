"""Every user process of a dump with its memory maps, through drgn's own helpers."""
from drgn.helpers.linux.fs import d_path
from drgn.helpers.linux.mm import for_each_vma
from drgn.helpers.linux.pid import for_each_task

for task in for_each_task(prog):
    if not task.mm or task.pid != task.tgid:
        continue
    print(task.pid.value_(), task.comm.string_().decode())
    for vma in for_each_vma(task.mm):
        name = d_path(vma.vm_file.f_path).decode() if vma.vm_file else ""
        print(f"{vma.vm_start.value_():x}-{vma.vm_end.value_():x} {vma.vm_flags.value_():x} {name}")
