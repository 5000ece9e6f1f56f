# A 32-bit PV guest, as small as one can be: it gives its turn away for ever. It is there to be refused.
# Notes: xen/include/public/elfnote.h. Assembled with `as --32`, AT&T syntax.

    .macro XEN_NOTE type:req, desc:vararg
    .balign 4
    .long 4, 8884f - 8883f, \type
    .asciz "Xen"
8883:
    \desc
8884:
    .balign 4
    .endm

    .section .note.Xen, "a", @note
    XEN_NOTE 6, .asciz "narrow"               # GUEST_OS
    XEN_NOTE 8, .asciz "generic"              # LOADER
    XEN_NOTE 5, .asciz "xen-3.0"              # XEN_VERSION
    XEN_NOTE 3, .long 0xc0000000              # VIRT_BASE
    XEN_NOTE 4, .long 0xc0000000              # PADDR_OFFSET: the linker's physical addresses are virtual ones
    XEN_NOTE 1, .long _start                  # ENTRY
    XEN_NOTE 2, .long hypercall_page          # HYPERCALL_PAGE, filled by the builder
    XEN_NOTE 9, .asciz "yes"                  # PAE_MODE
    XEN_NOTE 10, .asciz "pae_pgdir_above_4gb" # FEATURES

    .text
    .balign 4096
hypercall_page:
    .fill 4096, 1, 0xcc

    .globl _start
_start:
    mov $0, %ebx                              # SCHEDOP_yield
    mov $0, %ecx
    call hypercall_page + 29 * 32             # __HYPERVISOR_sched_op
    jmp _start
