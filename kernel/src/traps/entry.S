# Exception entry and the one routine that may fault and go on (xen/arch/x86/x86_64/entry.S:create_bounce_frame).
# Xen pushes on the current stack, low to high: rcx, r11, [error code], rip, cs, rflags, rsp, ss. Nothing here returns
# into Rust code: core was compiled with a red zone, and the frame has overwritten it.

    .pushsection .text.traps, "ax", @progbits

# One 16-byte slot a vector: push what is missing so that all frames look alike.
    .macro TRAP_ENTRY vector:req, has_error:req
    .balign 16
    .if \has_error == 0
    push 0                                    # no error code: this slot sits below rcx, see trap_common
    .else
    push 1
    .endif
    push \vector
    jmp trap_common
    .endm

    .balign 16
    .globl trap_entries
trap_entries:
    .irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    .if (\vector == 8) || ((\vector >= 10) && (\vector <= 14)) || (\vector == 17) || (\vector == 21)
    TRAP_ENTRY \vector, 1
    .else
    TRAP_ENTRY \vector, 0
    .endif
    .endr

# rsp -> vector, has_error, rcx, r11, [error], rip, cs, rflags, rsp, ss
trap_common:
    cmp qword ptr [rsp], 14
    jne 1f
    cmp qword ptr [rsp + 40], offset m2p_read_begin
    jb 1f
    cmp qword ptr [rsp + 40], offset m2p_read_end
    jae 1f
    mov rsp, [rsp + 64]                       # back on the interrupted stack
    xor eax, eax                              # m2p_read: "not there"
    ret
1:
    push rax
    push rbx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    xor ebp, ebp
    and rsp, -16
    call trap_report                          # -> !
    ud2

# extern "C" fn m2p_read(address: u64 /* rdi */, value: *mut u64 /* rsi */) -> u64: 1 = read, 0 = the read faulted.
    .globl m2p_read
    .type m2p_read, @function
    .balign 16
m2p_read:
m2p_read_begin:
    mov rax, [rdi]
m2p_read_end:
    mov [rsi], rax
    mov eax, 1
    ret
    .size m2p_read, . - m2p_read
    .popsection
