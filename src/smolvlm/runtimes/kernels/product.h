/* y = W x + bias, for every format of weights and of inputs, with what follows it. */
#ifndef PRODUCT_H
#define PRODUCT_H
#include "lowrank.h"

/* ---- inputs of a product ---- */

/* Rows as the weights want them. F32, BF16: units. INT8: units, a scale and the sum of the values for each row.
   SPLIT (few rows, whole-number weights): a value is scale * (256 * high + low), with a scale for every GROUP. */
enum { SPLIT = 4, FEW = 12, FEW_INT8 = 8, MANY = 64 }; /* rows; beyond FEW weights are widened to bf16 once for all */

typedef struct {
    int kind, rows, inputs;
    const void *units;   /* SPLIT: the high halves; the low ones follow, rows * inputs bytes further */
    const float *scale;  /* INT8: [rows]; SPLIT: [rows][groups] */
    const int32_t *sum;  /* of the values as whole numbers; INT8: [rows]; SPLIT: [rows][groups] */
} rows_t;

ALWAYS int whole_number_weights(const linear_t *w) { return w->format == INT8 || w->format == INT4; }

/* Which kind of rows these weights take, and what the operator before them should write: F32 or BF16. */
static int kind_for(const linear_t *w, int rows) {
    if (w->format == F32) return F32;
    if (w->format == INT8 && w->int8_inputs) return INT8;
    return (w->format == INT8 && rows <= FEW_INT8) || (w->format == INT4 && rows <= FEW) ? SPLIT : BF16;
}
static int written_as(const linear_t *w, int rows) {
    int kind = kind_for(w, rows);
    return kind == F32 || kind == SPLIT ? F32 : BF16;
}

static void split_row(const float *x, int inputs, int8_t *high, int8_t *low, float *scale, int32_t *sum) {
    for (int g = 0; g < inputs / GROUP; g++, x += GROUP, high += GROUP, low += GROUP) {
        vf top = {0};
        for (int i = 0; i < GROUP; i += W) top = maximum(top, magnitude(load(x + i)));
        float most = largest_of(top), inverse = most > 0 ? 32512.0f / most : 0;
        vi total = {0};
        for (int i = 0; i < GROUP; i += W) {
            vi q = rounded(load(x + i) * inverse), h = (q + 128) >> 8;
            *(vb *)(high + i) = __builtin_convertvector(h, vb);
            *(vb *)(low + i) = __builtin_convertvector(q - (h << 8), vb);
            total += q;
        }
        scale[g] = most / 32512.0f;
        sum[g] = total_of(total);
    }
}

static void int8_row(const uint16_t *x, int inputs, int8_t *q, float *scale, int32_t *sum) {
    int whole = inputs / W * W;
    vf top = {0};
    for (int i = 0; i < whole; i += W) top = maximum(top, magnitude(load_bf16(x + i)));
    float most = largest_of(top);
    for (int i = whole; i < inputs; i++) most = MAX(most, fabsf(widen(x[i])));
    float inverse = most > 0 ? 127.0f / most : 0;
    vi totals = {0};
    for (int i = 0; i < whole; i += W) {
        vi value = rounded(load_bf16(x + i) * inverse);
        *(vb *)(q + i) = __builtin_convertvector(value, vb);
        totals += value;
    }
    int32_t total = total_of(totals);
    for (int i = whole; i < inputs; i++) total += q[i] = (int8_t)lrintf(widen(x[i]) * inverse);
    *scale = most / 127.0f;
    *sum = total;
}

typedef struct {
    const void *x; /* F32 or BF16, by kind */
    rows_t to;
} convert_t;

static void convert_task(void *job, int row, int worker) {
    convert_t *c = job;
    (void)worker;
    long n = c->to.inputs, groups = n / GROUP;
    int8_t *units = (int8_t *)c->to.units;
    if (c->to.kind == SPLIT)
        split_row((const float *)c->x + row * n, n, units + row * n, units + (c->to.rows + row) * n,
                  (float *)c->to.scale + row * groups, (int32_t *)c->to.sum + row * groups);
    else
        int8_row((const uint16_t *)c->x + row * n, n, units + row * n, (float *)c->to.scale + row, (int32_t *)c->to.sum + row);
}

/* x: rows of F32 or BF16, as written_as says. */
static rows_t rows_for(pool_t *pool, const linear_t *w, int rows, const void *x) {
    rows_t to = {kind_for(w, rows), rows, w->inputs, x, NULL, NULL};
    if (to.kind == F32 || to.kind == BF16) return to;
    long n = w->inputs, scales = to.kind == SPLIT ? n / GROUP : 1;
    to.units = pool_scratch(pool, -1, S_UNITS, (size_t)rows * n * 2);
    to.scale = pool_scratch(pool, -1, S_SCALES, (size_t)rows * scales * 4);
    to.sum = pool_scratch(pool, -1, S_SUMS, (size_t)rows * scales * 4);
    convert_t job = {x, to};
    pool_run(pool, rows, convert_task, &job);
    return to;
}

/* ---- products ---- */

enum activation { PLAIN, GELU, GATED };
enum output { TO_F32 = F32, TO_BF16 = BF16, ADD_TO_F32 };

typedef struct {
    const linear_t *w;
    rows_t x;
    const added_t *added; /* of each row, or NULL */
    int activation, output;
    void *y; /* rows of `outputs`, GATED: half as many */
    int from, to; /* rows of x and y */
    int panels, block, panels_a_task;
    pool_t *pool;
} product_t;

/* out: rows of a panel's 64 sums. Bias, activation, and where it goes. */
static void finish(const product_t *p, int row, int rows, int panel, float out[R][PANEL]) {
    const linear_t *w = p->w;
    int per_panel = p->activation == GATED ? PANEL / 2 : PANEL;
    long width = p->activation == GATED ? w->outputs / 2 : w->outputs;
    long first = (long)panel * per_panel, left = MIN(per_panel, width - first);
    for (int i = 0; i < rows; i++) {
        float *v = out[i];
        if (w->bias)
            for (int j = 0; j < PANEL; j += W) store(v + j, load(v + j) + load(w->bias + (long)panel * PANEL + j));
        if (p->activation == GELU)
            for (int j = 0; j < PANEL; j += W) store(v + j, gelu_tanh(load(v + j)));
        if (p->activation == GATED)
            for (int j = 0; j < PANEL / 2; j += W) store(v + j, silu(load(v + j)) * load(v + PANEL / 2 + j));
        long at = (row + i) * width + first;
        if (p->output == TO_BF16) {
            uint16_t *y = (uint16_t *)p->y + at;
            long j = 0;
            for (; j + W <= left; j += W) store_bf16(y + j, load(v + j));
            for (; j < left; j++) y[j] = narrow(v[j]);
        } else {
            float *y = (float *)p->y + at;
            long j = 0;
            if (p->output == ADD_TO_F32)
                for (; j < left; j++) y[j] += v[j];
            else
                memcpy(y, v, left * sizeof *y);
        }
    }
}

/* The first `wanted` columns of a panel; the last few of them by a narrow tile, as those of a head of 72 dimensions. */
static void float_tiles(int bf16, int n, long units, const uint32_t *x, const uint32_t *w, const char *ahead, int wanted,
                        float out[R][PANEL]) {
    for (int c = 0; c < wanted; c += W * C) {
        vf sum[R][C];
        int vectors = wanted - c <= W ? 1 : C;
#define F32_TILE(rows) tile_f32(rows, C, units, x, units, w + c, PANEL, ahead, sum)
#define BF16_TILE(rows) tile_bf16(rows, C, units, x, units, w + c, PANEL, ahead, sum)
#define NARROW_F32_TILE(rows) tile_f32(rows, 1, units, x, units, w + c, PANEL, ahead, sum)
#define NARROW_BF16_TILE(rows) tile_bf16(rows, 1, units, x, units, w + c, PANEL, ahead, sum)
        if (vectors == C) {
            if (bf16) { FOR_ROWS(n, BF16_TILE) } else { FOR_ROWS(n, F32_TILE) }
        } else {
            if (bf16) { FOR_ROWS(n, NARROW_BF16_TILE) } else { FOR_ROWS(n, NARROW_F32_TILE) }
        }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < vectors; j++) store(out[i] + c + j * W, sum[i][j]);
    }
}

static void int8_tiles(int n, const product_t *p, int row, const uint32_t *w, int panel, const char *ahead,
                       float out[R][PANEL]) {
    long units = p->x.inputs / 4;
    const uint32_t *x = (const uint32_t *)p->x.units + row * units;
    for (int c = 0; c < PANEL; c += W * C) {
        vi sum[R][C];
#define INT8_TILE(rows) tile_int8(rows, C, units, x, units, w + c, PANEL, ahead, sum)
        FOR_ROWS(n, INT8_TILE)
        for (int i = 0; i < n; i++)
            for (int j = 0; j < C; j++) {
                vf exact = __builtin_convertvector(sum[i][j] - 128 * p->x.sum[row + i], vf);
                store(out[i] + c + j * W, exact * p->x.scale[row + i] * load(p->w->scale + (long)panel * PANEL + c + j * W));
            }
    }
}

/* Few rows of SPLIT values: the weights are read once from memory as they lie, every group has its own scales. */
ALWAYS void split_tile(const int rows, const product_t *p, int row, const uint32_t *w, const uint16_t *scale, int c,
                       float out[R][PANEL]) {
    const int halves = p->w->format == INT4;
    long n = p->x.inputs, groups = n / GROUP;
    const uint32_t *high[rows], *low[rows];
    vf sum[rows][C];
    for (int i = 0; i < rows; i++) {
        high[i] = (const uint32_t *)((const int8_t *)p->x.units + (row + i) * n);
        low[i] = (const uint32_t *)((const int8_t *)p->x.units + (p->x.rows + row + i) * n);
        for (int j = 0; j < C; j++) sum[i][j] = (vf){0};
    }
    for (long g = 0; g < groups; g++, w += (halves ? 4 : 8) * PANEL) {
        vi tops[rows][C], lows[rows][C];
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < C; j++) tops[i][j] = lows[i][j] = (vi){0};
        for (int u = 0; u < (halves ? 4 : 8); u++)
            for (int j = 0; j < C; j++) {
                vu column = *(const vu *)(w + u * PANEL + c + j * W), second = (column >> 4) & 0x0f0f0f0f;
                if (halves) column &= 0x0f0f0f0f;
                for (int i = 0; i < rows; i++) {
                    long at = g * 8 + u;
                    tops[i][j] = dot_int8(tops[i][j], splat_bits(high[i][at]), column);
                    lows[i][j] = dot_int8(lows[i][j], splat_bits(low[i][at]), column);
                    if (halves) {
                        tops[i][j] = dot_int8(tops[i][j], splat_bits(high[i][at + 4]), second);
                        lows[i][j] = dot_int8(lows[i][j], splat_bits(low[i][at + 4]), second);
                    }
                }
            }
        for (int i = 0; i < rows; i++) {
            int32_t zero = (halves ? 8 : 128) * p->x.sum[(row + i) * groups + g];
            float factor = p->x.scale[(row + i) * groups + g];
            for (int j = 0; j < C; j++) {
                vf exact = __builtin_convertvector((tops[i][j] << 8) + lows[i][j] - zero, vf) * factor;
                if (halves) exact *= load_bf16(scale + g * PANEL + c + j * W);
                sum[i][j] += exact;
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < C; j++) store(out[i] + c + j * W, sum[i][j]);
}

static void split_tiles(int n, const product_t *p, int row, const uint32_t *w, int panel, float out[R][PANEL]) {
    const uint16_t *scale = (const uint16_t *)p->w->scale + (long)panel * (p->x.inputs / GROUP) * PANEL;
    for (int c = 0; c < PANEL; c += W * C) switch (n) {
        case 1: split_tile(1, p, row, w, scale, c, out); break;
        case 2: split_tile(2, p, row, w, scale, c, out); break;
        default: split_tile(3, p, row, w, scale, c, out);
    }
}

/* Scales of INT8 outputs, for sums that don't have them yet. */
static void scale_columns(const product_t *p, int rows, int panel, float out[R][PANEL]) {
    const float *scale = p->w->scale + (long)panel * PANEL;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < PANEL; j += W) store(out[i] + j, load(out[i] + j) * load(scale + j));
}

/* A panel of whole numbers as bf16 units, for many rows. INT8 values are exact in bf16; INT4 takes its scales along. */
static void widen_panel(const linear_t *w, const uint32_t *panel, int number, uint32_t *to) {
    if (w->format == INT8) {
        for (long u = 0; u < w->inputs / 4; u++, panel += PANEL, to += 2 * PANEL)
            for (int j = 0; j < PANEL; j += W) {
                /* 2^23 + a byte is its bits beside those of 2^23: less than a conversion */
                vu four = *(const vu *)(panel + j);
                for (int pair = 0; pair < 2; pair++) {
                    vf first = (vf)(((four >> (16 * pair)) & 0xff) | 0x4b000000) - 8388736.0f;
                    vf second = (vf)(((four >> (16 * pair + 8)) & 0xff) | 0x4b000000) - 8388736.0f;
                    *(vu *)(to + pair * PANEL + j) = ((vu)first >> 16) | ((vu)second & 0xffff0000);
                }
            }
        return;
    }
    const uint16_t *scale = (const uint16_t *)w->scale + (long)number * (w->inputs / GROUP) * PANEL;
    for (long g = 0; g < w->inputs / GROUP; g++, panel += 4 * PANEL, scale += PANEL, to += 16 * PANEL)
        for (int u = 0; u < 8; u++)
            for (int j = 0; j < PANEL; j += W) {
                vu four = (*(const vu *)(panel + (u & 3) * PANEL + j) >> (u & 4)) & 0x0f0f0f0f;
                vf factor = load_bf16(scale + j);
                for (int pair = 0; pair < 2; pair++) {
                    vf first = __builtin_convertvector((vi)((four >> (16 * pair)) & 0xff) - 8, vf) * factor;
                    vf second = __builtin_convertvector((vi)((four >> (16 * pair + 8)) & 0xff) - 8, vf) * factor;
                    vu low = (vu)first, high = (vu)second;
                    low += 0x7fff + ((low >> 16) & 1), high += 0x7fff + ((high >> 16) & 1);
                    *(vu *)(to + (2 * u + pair) * PANEL + j) = (low >> 16) | (high & 0xffff0000);
                }
            }
}

static long panel_units(const linear_t *w) { /* 32-bit words of a panel */
    long per_unit = w->format == F32 ? 1 : w->format == BF16 ? 2 : w->format == INT8 ? 4 : 8;
    return w->inputs / per_unit * PANEL;
}

static void product_task(void *job, int task, int worker) {
    const product_t *p = job;
    int widens = p->x.kind == BF16 && whole_number_weights(p->w);
    int tasks_a_block = (p->panels + p->panels_a_task - 1) / p->panels_a_task;
    int first = task % tasks_a_block * p->panels_a_task, last = MIN(first + p->panels_a_task, p->panels);
    int start = p->from + task / tasks_a_block * p->block, end = MIN(start + p->block, p->to);
    int step = p->x.kind == SPLIT ? 3 : R;
    long units = p->x.inputs / (p->x.kind == F32 ? 1 : 2);
    float out[R][PANEL] __attribute__((aligned(64)));
    for (int panel = first; panel < last; panel++) {
        const uint32_t *w = (const uint32_t *)p->w->panels + panel * panel_units(p->w);
        if (widens) {
            uint32_t *wide = pool_scratch(p->pool, worker, W_PANEL, (size_t)p->w->inputs * PANEL * 2);
            widen_panel(p->w, w, panel, wide);
            w = wide;
        }
        const char *next = (const char *)((const uint32_t *)p->w->panels + (panel + 1) * panel_units(p->w));
        long lines = panel + 1 < last && end - start > 2 * step ? panel_units(p->w) / 16 : 0; /* 64 bytes each */
        for (int row = start; row < end; row += step) {
            int n = MIN(step, end - row);
            const char *ahead = lines > 0 ? next : NULL;
            lines -= units, next += 64 * units;
            if (p->x.kind == SPLIT)
                split_tiles(n, p, row, w, panel, out);
            else if (p->x.kind == INT8)
                int8_tiles(n, p, row, w, panel, ahead, out);
            else
                float_tiles(p->x.kind == BF16, n, units, (const uint32_t *)p->x.units + row * units, w, ahead, PANEL, out);
            if (p->w->format == INT8 && p->x.kind != INT8) scale_columns(p, n, panel, out);
            if (p->added) add_low_rank(p->added + row, n, panel, out);
            finish(p, row, n, panel, out);
        }
    }
}

/* Rows that a panel is used for before the next: so many that reading it from memory, or widening it, is little beside
   the products; they come from the third-level cache if need be (benchmarks/LOG.md). */
enum { BLOCK_BYTES = 2 << 20 };

/* x: rows of all shares, as written_as says of them together. Shares of one matrix read it once. */
static void product(pool_t *pool, const share_t *share, int shares, const void *x, int activation, int output, void *y) {
    int rows = 0;
    for (int s = 0; s < shares; s++) rows += share[s].rows;
    rows_t inputs = rows_for(pool, share->w, rows, x);
    const added_t *added = added_for(pool, share, shares, rows, x, inputs.kind == BF16 || inputs.kind == INT8);
    for (int s = 0, from = 0, to = 0; s < shares; from = to) {
        const linear_t *w = share[s].w;
        while (s < shares && share[s].w->panels == w->panels && share[s].w->bias == w->bias) to += share[s++].rows;
        product_t job = {w, inputs, added, activation, output, y, from, to, (w->outputs + PANEL - 1) / PANEL, FEW, 1, pool};
        if (to - from <= MANY) job.panels_a_task = MAX(1, job.panels / (8 * pool_workers(pool)));
        if (to - from > FEW) {
            long row_bytes = w->inputs * (inputs.kind == F32 ? 4L : inputs.kind == INT8 ? 1L : 2L);
            job.block = MAX(BLOCK_BYTES / row_bytes / R * R, 4 * R);
        }
        int blocks = (to - from + job.block - 1) / job.block;
        pool_run(pool, blocks * ((job.panels + job.panels_a_task - 1) / job.panels_a_task), product_task, &job);
    }
}
static void product_of(pool_t *pool, const linear_t *w, int rows, const void *x, int activation, int output, void *y) {
    share_t all = {w, rows};
    product(pool, &all, 1, x, activation, output, y);
}

#endif
