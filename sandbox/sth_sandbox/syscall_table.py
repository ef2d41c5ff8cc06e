"""Numbers of the system calls that the filter names, for the three machines that we run on.

From the kernel's own tables, Linux 6.10: arch/x86/entry/syscalls/syscall_64.tbl,
include/uapi/asm-generic/unistd.h (aarch64) and arch/arm/tools/syscall.tbl (EABI). From 424 on
all machines share one numbering. A dash: that machine has no such call.
"""

# mseal, the last one that was looked at. What comes later is refused until somebody looks.
LAST_KNOWN = 462

# name, x86_64, aarch64, arm. Those above the empty line are decided by their arguments.
_TABLE = """
clone               56  220  120
clone3             435  435  435
personality        135   92  136
mknod              133    -   14
mknodat            259   33  324
ioctl               16   29   54
socket              41  198  281

ptrace             101  117   26
process_vm_readv   310  270  376
process_vm_writev  311  271  377
kcmp               312  272  378
pidfd_getfd        438  438  438
process_madvise    440  440  440
mount              165   40   21
umount2            166   39   52
pivot_root         155   41  218
chroot             161   51   61
fsopen             430  430  430
fsconfig           431  431  431
fsmount            432  432  432
fspick             433  433  433
open_tree          428  428  428
move_mount         429  429  429
mount_setattr      442  442  442
setns              308  268  375
unshare            272   97  337
add_key            248  217  309
request_key        249  218  310
keyctl             250  219  311
io_uring_setup     425  425  425
io_uring_enter     426  426  426
io_uring_register  427  427  427
bpf                321  280  386
perf_event_open    298  241  364
userfaultfd        323  282  388
fanotify_init      300  262  367
kexec_load         246  104  347
kexec_file_load    320  294  401
reboot             169  142   88
init_module        175  105  128
finit_module       313  273  379
delete_module      176  106  129
create_module      174    -    -
query_module       178    -    -
get_kernel_syms    177    -    -
nfsservctl         180   42  169
swapon             167  224   87
swapoff            168  225  115
acct               163   89   51
quotactl           179   60  131
quotactl_fd        443  443  443
syslog             103  116  103
vhangup            153   58  111
uselib             134    -   86
ustat              136    -   62
sysfs              139    -  135
_sysctl            156    -  149
lookup_dcookie     212   18  249
iopl               172    -    -
ioperm             173    -    -
modify_ldt         154    -    -
open_by_handle_at  304  265  371
name_to_handle_at  303  264  370
settimeofday       164  170   79
clock_settime      227  112  262
clock_settime64      -    -  404
adjtimex           159  171  124
clock_adjtime      305  266  372
clock_adjtime64      -    -  405
sethostname        170  161   74
setdomainname      171  162  121
statmount          457  457  457
listmount          458  458  458
lsm_get_self_attr  459  459  459
lsm_set_self_attr  460  460  460
lsm_list_modules   461  461  461
"""


def _numbers(column: int) -> dict[str, int]:
    rows = (line.split() for line in _TABLE.splitlines() if line)
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


# machine -> name -> number
NUMBERS = {"x86_64": _numbers(1), "aarch64": _numbers(2), "arm": _numbers(3)}

DENIED = tuple(line.split()[0] for line in _TABLE.strip().split("\n\n")[1].splitlines())
