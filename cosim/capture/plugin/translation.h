/*
 * The code that QEMU has translated: which blocks there are, and how to have it translated anew.
 */
#ifndef COSIM_TRANSLATION_H
#define COSIM_TRANSLATION_H

#include <stdbool.h>
#include <stdint.h>

/* `renewed` is called when QEMU has dropped all code and the plugin's callbacks; it registers
 * them. */
void translation_open(uint64_t plugin, void (*renewed)(uint64_t plugin));
/* Translate all code anew, because the phase or the trap vectors have changed. */
void translate_anew(void);
/* A block at `va` is being translated. */
void note_translated(uint64_t va);
/* Return true if a block that begins at this offset in its page was translated. */
bool is_translated(uint64_t va);

#endif
