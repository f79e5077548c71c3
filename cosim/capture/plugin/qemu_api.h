/*
 * The part of QEMU's TCG plugin interface, version 4, that this plugin calls.  We declare it from
 * its documentation ("QEMU TCG Plugins"), so that neither QEMU's headers nor glib's are needed.
 */
#ifndef COSIM_QEMU_API_H
#define COSIM_QEMU_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COSIM_API_VERSION 4
#define COSIM_EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
struct qemu_plugin_hwaddr;
struct qemu_plugin_register;

struct qemu_info {
    const char *target;
    struct {
        int oldest, current;
    } api;
    bool system;
    struct {
        int vcpus, vcpus_max;
    } machine;
};

/* An enumeration is an int in the ABI of every host that QEMU runs on. */
enum { CB_NO_REGISTERS = 0, CB_READS_REGISTERS = 1 };
enum { MEMORY_READ = 1, MEMORY_WRITE = 2 };
enum { COND_EQ = 2, COND_NE = 3 };
enum { INLINE_ADD = 0, INLINE_STORE = 1 };

/* A counter per vCPU: `offset` bytes into each vCPU's element of a scoreboard. */
struct counter {
    struct qemu_plugin_scoreboard *board;
    size_t offset;
};

struct register_name {
    struct qemu_plugin_register *handle;
    const char *name, *feature;
};

/* glib's dynamic arrays, as far as their documented public fields go. */
struct glib_array {
    char *data;
    unsigned int length;
};
struct glib_bytes {
    uint8_t *data;
    unsigned int length;
};
struct glib_bytes *g_byte_array_new(void);
char *g_array_free(struct glib_array *array, int free_segment);

/* What was loaded or stored; its type says how much of the low half counts. */
struct memory_value {
    int type;
    union {
        uint16_t half;
        struct {
            uint64_t low, high;
        };
    };
};

typedef void (*id_callback)(uint64_t id);
typedef void (*id_vcpu_callback)(uint64_t id, unsigned int vcpu);
typedef void (*exit_callback)(uint64_t id, void *data);
typedef void (*translate_callback)(uint64_t id, struct qemu_plugin_tb *tb);
typedef void (*exec_callback)(unsigned int vcpu, void *data);
typedef void (*memory_callback)(unsigned int vcpu, uint32_t info, uint64_t va, void *data);

void qemu_plugin_reset(uint64_t id, id_callback done);
void qemu_plugin_register_vcpu_init_cb(uint64_t id, id_vcpu_callback f);
void qemu_plugin_register_vcpu_idle_cb(uint64_t id, id_vcpu_callback f);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translate_callback f);
void qemu_plugin_register_atexit_cb(uint64_t id, exit_callback f, void *data);

void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, exec_callback f, int flags,
                                          void *data);
void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *tb, exec_callback f,
                                               int flags, int condition, struct counter entry,
                                               uint64_t immediate, void *data);
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *tb, int operation,
                                                       struct counter entry, uint64_t immediate);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, exec_callback f,
                                            int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_cond_cb(struct qemu_plugin_insn *insn, exec_callback f,
                                                 int flags, int condition, struct counter entry,
                                                 uint64_t immediate, void *data);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *insn,
                                                         int operation, struct counter entry,
                                                         uint64_t immediate);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, memory_callback f, int flags,
                                      int directions, void *data);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *into, size_t room);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);

unsigned int qemu_plugin_mem_size_shift(uint32_t info);
struct memory_value qemu_plugin_mem_get_value(uint32_t info);
bool qemu_plugin_mem_is_store(uint32_t info);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(uint32_t info, uint64_t va);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *address);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *address);

struct glib_array *qemu_plugin_get_registers(void);
int qemu_plugin_read_register(struct qemu_plugin_register *handle, struct glib_bytes *into);

struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *board, unsigned int vcpu);

#endif
