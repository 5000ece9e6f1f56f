# memcpy, memmove, memset, memcmp, bcmp: core calls them and no libc brings them. 64 bytes a turn through SSE, which is
# on from the first instruction of a PV domain; `rep movs` is many times slower under emulation.
# System V: rdi = destination, rsi = source, rdx = length; rax returns the destination.

    .pushsection .text.mem, "ax", @progbits

    .globl memcpy
    .type memcpy, @function
    .balign 16
memcpy:
    mov rax, rdi
memcpy_forward:
    cmp rdx, 64
    jb 2f
1:  movups xmm0, [rsi]
    movups xmm1, [rsi + 16]
    movups xmm2, [rsi + 32]
    movups xmm3, [rsi + 48]
    movups [rdi], xmm0
    movups [rdi + 16], xmm1
    movups [rdi + 32], xmm2
    movups [rdi + 48], xmm3
    add rsi, 64
    add rdi, 64
    sub rdx, 64
    cmp rdx, 64
    jae 1b
2:  cmp rdx, 8
    jb 3f
    mov rcx, [rsi]
    mov [rdi], rcx
    add rsi, 8
    add rdi, 8
    sub rdx, 8
    jmp 2b
3:  test rdx, rdx
    jz 4f
    mov cl, [rsi]
    mov [rdi], cl
    inc rsi
    inc rdi
    dec rdx
    jmp 3b
4:  ret
    .size memcpy, . - memcpy

    .globl memmove
    .type memmove, @function
    .balign 16
memmove:
    mov rax, rdi
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx                              # unsigned: the destination starts inside the source?
    jae memcpy_forward
    lea rsi, [rsi + rdx]
    lea rdi, [rdi + rdx]
1:  cmp rdx, 8
    jb 2f
    mov rcx, [rsi - 8]
    mov [rdi - 8], rcx
    sub rsi, 8
    sub rdi, 8
    sub rdx, 8
    jmp 1b
2:  test rdx, rdx
    jz 3f
    mov cl, [rsi - 1]
    mov [rdi - 1], cl
    dec rsi
    dec rdi
    dec rdx
    jmp 2b
3:  ret
    .size memmove, . - memmove

    .globl memset
    .type memset, @function
    .balign 16
memset:
    mov rax, rdi
    movzx ecx, sil
    mov r8, 0x0101010101010101
    imul rcx, r8
    cmp rdx, 64
    jb 2f
    movq xmm0, rcx
    punpcklqdq xmm0, xmm0
1:  movups [rdi], xmm0
    movups [rdi + 16], xmm0
    movups [rdi + 32], xmm0
    movups [rdi + 48], xmm0
    add rdi, 64
    sub rdx, 64
    cmp rdx, 64
    jae 1b
2:  cmp rdx, 8
    jb 3f
    mov [rdi], rcx
    add rdi, 8
    sub rdx, 8
    jmp 2b
3:  test rdx, rdx
    jz 4f
    mov [rdi], cl
    inc rdi
    dec rdx
    jmp 3b
4:  ret
    .size memset, . - memset

    .globl memcmp
    .type memcmp, @function
    .globl bcmp
    .type bcmp, @function
    .balign 16
memcmp:
bcmp:
1:  cmp rdx, 8
    jb 2f
    mov rax, [rdi]
    mov rcx, [rsi]
    cmp rax, rcx
    jne 4f
    add rdi, 8
    add rsi, 8
    sub rdx, 8
    jmp 1b
2:  test rdx, rdx
    jz 3f
    movzx eax, byte ptr [rdi]
    movzx ecx, byte ptr [rsi]
    sub eax, ecx
    jnz 5f
    inc rdi
    inc rsi
    dec rdx
    jmp 2b
3:  xor eax, eax
    ret
4:  bswap rax                                 # the first differing byte decides
    bswap rcx
    cmp rax, rcx
    sbb eax, eax
    or eax, 1
5:  ret
    .size memcmp, . - memcmp
    .size bcmp, . - bcmp
    .popsection
