# ELF notes, the hypercall page and the first instruction (xen/include/public/elfnote.h, arch-x86/xen-x86_64.h).
# Assembled once, by boot/mod.rs; Intel syntax.

    .pushsection .note.Xen, "a", @note
    .macro XEN_NOTE type:req, desc:vararg
    .balign 4
    .long 4, 8884f - 8883f, \type
    .asciz "Xen"
8883:
    \desc
8884:
    .balign 4
    .endm
    XEN_NOTE 6, .asciz "livesave"             # GUEST_OS
    XEN_NOTE 8, .asciz "generic"              # LOADER
    XEN_NOTE 5, .asciz "xen-3.0"              # XEN_VERSION
    XEN_NOTE 3, .quad {virt_base}             # VIRT_BASE
    XEN_NOTE 4, .quad 0                       # PADDR_OFFSET
    XEN_NOTE 1, .quad _start                  # ENTRY
    XEN_NOTE 2, .quad hypercall_page          # HYPERCALL_PAGE, filled by the builder
    XEN_NOTE 10, .asciz "pae_pgdir_above_4gb"   # FEATURES
    XEN_NOTE 17, .quad 1 << 11                # SUPPORTED_FEATURES: XENFEAT_dom0, for boots without a toolstack
    .popsection

    .pushsection .text.hypercall_page, "ax", @progbits
    .balign 4096
    .globl hypercall_page
    .type hypercall_page, @function
hypercall_page:
    .fill 4096, 1, 0xcc
    .size hypercall_page, 4096
    .popsection

# rsi = start_info (virtual), rsp = the builder's one-page stack, upcalls masked, IF set, bss already zero.
    .pushsection .text.start, "ax", @progbits
    .globl _start
    .type _start, @function
_start:
    cld
    mov rdi, rsi
    mov rsi, rsp                              # the builder's stack is the last thing that it placed
    mov esp, offset __stack_top               # below 2 GiB: zero-extended; page-aligned, so aligned for the call
    xor ebp, ebp
    call livesave_main                        # extern "C" fn(start_info, end of what is in use) -> !
    ud2
    .size _start, . - _start
    .popsection
