#ifndef PACK_H
#define PACK_H
#include "pool.h"

enum source { SOURCE_F32, SOURCE_BF16, SOURCE_F16, SOURCE_INT8, SOURCE_INT4 };

/* rows: where each output's weights lie, NULL for one that fills up a panel. scales: likewise their scales, for
   SOURCE_INT8 and SOURCE_INT4, which go into panels of the same format. scale: INT8, INT4 only. */
void pack(pool_t *, int format, int source, int panels, int inputs, const void *const *rows, const void *const *scales,
          void *to, void *scale);

/* Rows of a checkpoint -> rows of a quantised one: INT8 has a byte each and a float scale per row; INT4 has two values
   (+ 8) in a byte, i and i + 16 of a group of 32, and a bf16 scale per group. */
void quantise(pool_t *, int format, int source, int rows, int inputs, const void *from, void *to, void *scale);
#endif
