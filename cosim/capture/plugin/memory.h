/*
 * Loads and stores.
 */
#ifndef COSIM_MEMORY_H
#define COSIM_MEMORY_H

#include "event.h"
#include "filter.h"
#include "qemu_api.h"

/* The callback for loads or stores of a class; NULL if they need none. */
memory_callback memory_callback_for(enum class class, enum access kind);

#endif
