/* The native CPU kernels of smolvlm: whole towers in one call. No dependency but libc, libm and pthreads.

   A unit is 32 bits of a row: 1 float, 2 bf16 or 4 int8 values that lie next to each other. All formats share one
   layout and one loop: a weight matrix (outputs, inputs) is cut into panels of 64 outputs, and a panel holds, unit by
   unit, 64 outputs side by side:  panel[outputs / 64][inputs / unit size][64].  Inputs and outputs are filled up with
   zeros. The int4 format holds two units in one: the low halves of its bytes are the units of the first half of a
   group of 32 inputs, the high halves those of the second. */
#ifndef SMOLVLM_H
#define SMOLVLM_H
#include <stdint.h>

enum { PANEL = 64, GROUP = 32 };
enum format { F32, BF16, INT8, INT4 };

/* Some rows of an adapter's B, transposed: values[ranks][32] from `at` on, for 32 outputs that lie side by side. */
typedef struct {
    int32_t rank, ranks; /* of A: the first, and how many */
    int64_t at;
} block_t;

/* What an adapter adds to a product: y += B (A x). Where a product has several matrices, their As lie side by side, and a
   block has the ranks of its own one. Values are floats, or bf16. */
typedef struct {
    const void *a; /* [units][ranks], and 64 bytes that are read for nothing */
    const void *b; /* the blocks' values, scaled */
    const block_t *block;
    const int32_t *first; /* [outputs / 32 + 1]: the first block of each 32 outputs */
    int32_t ranks, bf16;
} low_rank_t;

/* y = W x + bias. INT8: bytes are value + 128, scale[outputs]. INT4: halves are value + 8, scale[panel][group][64]. */
typedef struct {
    const void *panels;
    const float *scale;
    const float *bias; /* [outputs] or NULL */
    int32_t inputs, outputs;
    int32_t format;
    int32_t int8_inputs; /* multiply with inputs rounded to int8, row by row, instead of bf16 */
    const low_rank_t *added; /* an adapter's, or NULL */
} linear_t;

typedef struct {
    linear_t qkv, out, up, down; /* text: up is gate and up, interleaved by 32; vision: fc1 and fc2 */
    const float *norm1, *norm1_bias, *norm2, *norm2_bias;
} layer_t;

/* A tower of layers. `exact`: float activations (weights are F32), else bf16. */
typedef struct {
    int32_t layers, hidden, heads, kv_heads, head_dim, intermediate;
    int32_t exact;
    float eps, theta;
    const layer_t *layer;
    const float *norm, *norm_bias;
} tower_t;

typedef struct {
    tower_t tower;
    linear_t patches;       /* (3 * patch^2) -> hidden */
    linear_t connector;     /* (hidden * scale^2) -> text hidden */
    const float *positions; /* (patches, hidden) of a whole tile */
    int32_t side, patch, across, scale; /* pixels of a tile and of a patch, patches across a tile, pixel shuffle */
} vision_t;

typedef struct {
    tower_t tower;
    linear_t head;
    int32_t vocabulary;
} text_t;

/* New tokens of one sequence. cache: its slab of sm_cache_bytes; start: how many tokens are in it already. model: the
   one that reads it, of the same shapes and formats as the others'; where their matrices are the same ones, they are
   read once for all. */
typedef struct {
    void *cache;
    int32_t capacity, start, count;
    const text_t *model;
} span_t;

typedef struct pool pool_t;

#endif
