/* What adapters add to a product: each row of a batch has its own, or none. */
#ifndef LOWRANK_H
#define LOWRANK_H
#include "kernels.h"
#include "vector.h"

/* Rows of a product that follow each other and go through the same matrix, with the same adapter. */
typedef struct {
    const linear_t *w;
    int rows;
} share_t;

/* An adapter for one row of a product. inner: A x. */
typedef struct {
    const low_rank_t *added; /* or NULL */
    const float *inner;
} added_t;

enum { TILE_RANKS = 32, HALF = PANEL / 2 }; /* ranks of a task */

/* Some ranks of A x, for up to R rows. */
typedef struct {
    const low_rank_t *added;
    const void *x;
    float *inner; /* rows of `width` */
    int width, rows, rank;
} inner_t;

typedef struct {
    const inner_t *task;
    int inputs;
    int x_is_bf16;
    pool_t *pool;
} inners_t;

static void inner_task(void *job, int task, int worker) {
    const inners_t *p = job;
    const inner_t *t = p->task + task;
    const uint32_t *x = t->x;
    int bf16 = t->added->bf16, end = MIN(t->rank + TILE_RANKS, t->added->ranks);
    long units = p->inputs / (bf16 ? 2 : 1);
    if (bf16 && !p->x_is_bf16) { /* few rows for weights of whole numbers: the base has more of them, the adapter this */
        uint16_t *half = pool_scratch(p->pool, worker, W_INNER, (size_t)t->rows * p->inputs * 2);
        for (long i = 0; i < (long)t->rows * p->inputs; i++) half[i] = narrow(((const float *)t->x)[i]);
        x = (const uint32_t *)half;
    }
    for (int r = t->rank; r < end; r += 2 * W) {
        const uint32_t *a = (const uint32_t *)t->added->a + r;
        int vectors = end - r <= W ? 1 : 2;
        vf sum[R][C];
#define F32_TILE(rows) tile_f32(rows, 2, units, x, units, a, t->added->ranks, NULL, sum)
#define BF16_TILE(rows) tile_bf16(rows, 2, units, x, units, a, t->added->ranks, NULL, sum)
#define NARROW_F32_TILE(rows) tile_f32(rows, 1, units, x, units, a, t->added->ranks, NULL, sum)
#define NARROW_BF16_TILE(rows) tile_bf16(rows, 1, units, x, units, a, t->added->ranks, NULL, sum)
        if (vectors == 2) {
            if (bf16) { FOR_ROWS(t->rows, BF16_TILE) } else { FOR_ROWS(t->rows, F32_TILE) }
        } else {
            if (bf16) { FOR_ROWS(t->rows, NARROW_BF16_TILE) } else { FOR_ROWS(t->rows, NARROW_F32_TILE) }
        }
#undef F32_TILE
#undef BF16_TILE
#undef NARROW_F32_TILE
#undef NARROW_BF16_TILE
        for (int i = 0; i < t->rows; i++)
            for (int j = 0; j < vectors; j++) store(t->inner + (long)i * t->width + r + j * W, sum[i][j]);
    }
}

/* The adapter of each row, with A x computed; NULL when no row has one. */
static const added_t *added_for(pool_t *pool, const share_t *share, int shares, int rows, const void *x, int x_is_bf16) {
    long floats = 0, most = 0, row_bytes = share->w->inputs * (x_is_bf16 ? 2L : 4L);
    for (int s = 0; s < shares; s++) {
        const low_rank_t *w = share[s].w->added;
        if (!w) continue;
        floats += (long)share[s].rows * ROUND_UP(w->ranks, TILE_RANKS);
        most += (share[s].rows / R + 1L) * (w->ranks / TILE_RANKS + 1);
    }
    if (!floats) return NULL;
    added_t *added = pool_scratch(pool, -1, S_ADDED, rows * sizeof *added);
    float *inner = pool_scratch(pool, -1, S_INNER, floats * sizeof *inner);
    inner_t *task = pool_scratch(pool, -1, S_TASKS, most * sizeof *task);
    int tasks = 0, first = 0;
    for (int s = 0; s < shares; first += share[s++].rows) {
        const low_rank_t *w = share[s].w->added;
        int width = w ? ROUND_UP(w->ranks, TILE_RANKS) : 0;
        for (int row = 0; row < share[s].rows; row++) added[first + row] = (added_t){w, inner + (long)row * width};
        for (int row = 0; w && row < share[s].rows; row += R)
            for (int rank = 0; rank < w->ranks; rank += TILE_RANKS)
                task[tasks++] = (inner_t){
                    .added = w, .x = (const char *)x + (first + row) * row_bytes, .inner = inner + (long)row * width,
                    .width = width, .rows = MIN(R, share[s].rows - row), .rank = rank,
                };
        inner += (long)share[s].rows * width;
    }
    inners_t job = {task, share->w->inputs, x_is_bf16, pool};
    pool_run(pool, tasks, inner_task, &job);
    return added;
}

ALWAYS vf load_as(int bf16, const void *p, long at) {
    return bf16 ? load_bf16((const uint16_t *)p + at) : load((const float *)p + at);
}

/* The blocks of half a panel onto the sums of `rows` rows, a constant, that have the same adapter. */
ALWAYS void add_blocks(const int rows, const int bf16, const added_t *row, int place, float (*out)[PANEL]) {
    enum { VECTORS = 2 };
    const low_rank_t *w = row->added;
    for (int b = w->first[place]; b < w->first[place + 1]; b++) {
        const block_t *block = w->block + b;
        for (int c = 0; c < HALF; c += VECTORS * W) {
            vf sum[rows][VECTORS];
            float *to = out[0] + place % 2 * HALF + c;
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < VECTORS; j++) sum[i][j] = load(to + i * PANEL + j * W);
            for (int r = 0; r < block->ranks; r++) {
                vf values[VECTORS];
                for (int j = 0; j < VECTORS; j++) values[j] = load_as(bf16, w->b, block->at + r * HALF + c + j * W);
                for (int i = 0; i < rows; i++)
                    for (int j = 0; j < VECTORS; j++) sum[i][j] += row[i].inner[block->rank + r] * values[j];
            }
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < VECTORS; j++) store(to + i * PANEL + j * W, sum[i][j]);
        }
    }
}

/* B (A x) onto the sums of a panel. */
static void add_low_rank(const added_t *row, int rows, int panel, float (*out)[PANEL]) {
    for (int n; rows > 0; rows -= n, row += n, out += n) {
        for (n = 1; n < MIN(rows, R) && row[n].added == row->added;) n++;
        if (!row->added) continue;
        for (int place = 2 * panel; place < 2 * panel + 2; place++) {
#define BLOCKS(rows) if (row->added->bf16) add_blocks(rows, 1, row, place, out); else add_blocks(rows, 0, row, place, out)
            FOR_ROWS(n, BLOCKS)
#undef BLOCKS
        }
    }
}

#endif
