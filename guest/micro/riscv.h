/* Instructions that C cannot express. */
#ifndef RISCV_H
#define RISCV_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define read_csr(name) ({ u64 v_; asm volatile("csrr %0, " #name : "=r"(v_)); v_; })
#define write_csr(name, value) asm volatile("csrw " #name ", %0" ::"r"((u64)(value)) : "memory")
#define set_csr(name, bits) asm volatile("csrs " #name ", %0" ::"r"((u64)(bits)) : "memory")
#define clear_csr(name, bits) asm volatile("csrc " #name ", %0" ::"r"((u64)(bits)) : "memory")

static inline void fence_all(void) { asm volatile("sfence.vma" ::: "memory"); }
static inline void fence_va(u64 va) { asm volatile("sfence.vma %0" ::"r"(va) : "memory"); }
static inline void fence_asid(u64 asid)
{
    asm volatile("sfence.vma x0, %0" ::"r"(asid) : "memory");
}
static inline void fence_va_asid(u64 va, u64 asid)
{
    asm volatile("sfence.vma %0, %1" ::"r"(va), "r"(asid) : "memory");
}

/* Encoded by hand, because an assembler takes these only if their extensions are enabled. */
static inline void cbo_zero(void *at) { asm volatile(".insn i 0x0f, 2, x0, %0, 4" ::"r"(at) : "memory"); }
static inline void sfence_w_inval(void) { asm volatile(".word 0x18000073" ::: "memory"); }
static inline void sfence_inval_ir(void) { asm volatile(".word 0x18100073" ::: "memory"); }
static inline void sinval_va_asid(u64 va, u64 asid)
{
    asm volatile(".insn r 0x73, 0, 0x0b, x0, %0, %1" ::"r"(va), "r"(asid) : "memory");
}

enum { SSTATUS_SPP = 1 << 8, SSTATUS_SUM = 1 << 18, SSTATUS_MXR = 1 << 19 };
enum { ILLEGAL = 2, ECALL_U = 8, FETCH_FAULT = 12, LOAD_FAULT = 13, STORE_FAULT = 15 };

#endif
