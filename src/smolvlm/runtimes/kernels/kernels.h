#ifndef KERNELS_H
#define KERNELS_H
#include "pool.h"

/* One compiled copy for an instruction set. */
typedef struct {
    void (*see)(pool_t *, const vision_t *, int tiles, const float *pixels, float *features);
    void (*read)(pool_t *, const text_t *, int spans, const span_t *, float *x, int wanted, const int32_t *rows,
                 float *logits);
    long (*cache_bytes)(const tower_t *, int capacity);
    void (*copy_prefix)(const tower_t *, const uint32_t *from, int from_capacity, uint32_t *to, int to_capacity,
                        int tokens);
    void (*multiply)(pool_t *, const linear_t *, int rows, const float *x, float *y);
} kernels_t;
#endif
