#ifndef PACK_H
#define PACK_H
#include "pool.h"

enum source { SOURCE_F32, SOURCE_BF16, SOURCE_F16 };

/* rows: where each output's weights lie, NULL for one that fills up a panel. scale: INT8, INT4 only. */
void pack(pool_t *, int format, int source, int panels, int inputs, const void *const *rows, void *to, void *scale);
#endif
