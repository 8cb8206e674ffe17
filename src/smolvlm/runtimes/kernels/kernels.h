#ifndef KERNELS_H
#define KERNELS_H
#include "pool.h"

/* Scratch of pool_scratch: shared, and of each worker. */
enum { S_UNITS, S_SCALES, S_SUMS, S_A, S_B, S_QKV, S_X, S_CACHE, S_TURN, S_GROUPS, S_ADDED, S_INNER, S_TASKS };
enum { W_PANEL, W_SCORES, W_WEIGHTS, W_INNER };

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
