/* Softmax attention over keys and values that lie in panels. */
#ifndef ATTENTION_H
#define ATTENTION_H
#include "product.h"

/* ---- attention ---- */

/* Keys and values of one sequence and layer, laid out as panels: keys [head][tokens / 64][units][64 tokens], values
   [head][head_dim / 64][token units][64 dimensions]. A token unit is one token in F32, two in BF16. */
typedef struct {
    const tower_t *tower;
    uint32_t *keys, *values;
    long capacity; /* tokens, a multiple of 64 */
    int start, count;
    const void *qkv; /* rows of `count` tokens */
    int row_width;   /* elements between the rows of q */
    const void *q;
    void *y; /* rows of heads * head_dim, from this span's first */
    int output, causal, queries_a_task, grouped;
} attention_t;

ALWAYS long unit_of(const tower_t *t) { return t->exact ? 1 : 2; }
ALWAYS long key_words(const tower_t *t, long capacity) { return capacity * t->head_dim / unit_of(t); }
ALWAYS long value_words(const tower_t *t, long capacity) {
    return ROUND_UP(t->head_dim, PANEL) * capacity / unit_of(t);
}

static void put_key(const attention_t *a, int head, long token, const uint32_t *units) {
    long n = a->tower->head_dim / unit_of(a->tower);
    uint32_t *to = a->keys + head * key_words(a->tower, a->capacity) + token / PANEL * n * PANEL + token % PANEL;
    for (long u = 0; u < n; u++) to[u * PANEL] = units[u];
}

static void put_value(const attention_t *a, int head, long token, const void *value) {
    const tower_t *t = a->tower;
    uint32_t *base = a->values + head * value_words(t, a->capacity);
    for (int d = 0; d < t->head_dim; d++) {
        long panel = d / PANEL * a->capacity / unit_of(t) * PANEL;
        if (t->exact)
            base[panel + token * PANEL + d % PANEL] = ((const uint32_t *)value)[d];
        else
            ((uint16_t *)(base + panel + token / 2 * PANEL + d % PANEL))[token & 1] = ((const uint16_t *)value)[d];
    }
}

/* The values of two tokens that share their units, the first of them even. BF16 only. */
static void put_value_pair(const attention_t *a, int head, long token, const uint16_t *one, const uint16_t *two) {
    const tower_t *t = a->tower;
    uint32_t *base = a->values + head * value_words(t, a->capacity) + token / 2 * PANEL;
    long line = a->capacity / 2 * PANEL;
    int whole = t->head_dim / W * W; /* W divides PANEL, so a vector never leaves its panel */
    for (int d = 0; d < whole; d += W)
        *(vu *)(base + d / PANEL * line + d % PANEL) = (vu)load_bf16(one + d) >> 16 | (vu)load_bf16(two + d);
    for (int d = whole; d < t->head_dim; d++) base[d / PANEL * line + d % PANEL] = one[d] | (uint32_t)two[d] << 16;
}

/* Weights of `keys` scores, zeros after them up to a whole panel; returns 1 / their sum. */
static float softmax_row(float *score, long keys, float scale, int exact, void *weights) {
    vf most = splat(-INFINITY), sum = {0};
    long whole = keys / W * W, padded = ROUND_UP(keys, PANEL);
    for (long i = 0; i < whole; i += W) most = maximum(most, load(score + i));
    float top = largest_of(most);
    for (long i = whole; i < keys; i++) top = MAX(top, score[i]);
    for (long i = keys; i < padded; i++) score[i] = -INFINITY; /* weight 0 */
    for (long i = 0; i < padded; i += W) {
        vf value = exponential((load(score + i) - top) * scale);
        value = (vf)((vi)value & (vi)(load(score + i) > -INFINITY));
        sum += value;
        if (exact)
            store((float *)weights + i, value);
        else
            store_bf16((uint16_t *)weights + i, value);
    }
    return 1.0f / sum_of(sum);
}

static void attend(pool_t *pool, const attention_t *a, int head, int first_token, int rows, int worker) {
    const tower_t *t = a->tower;
    int d = t->head_dim, groups = t->heads / t->kv_heads, kv = a->grouped ? head : head / groups;
    long unit = unit_of(t), key_units = d / unit;
    long keys = a->causal ? a->start + first_token + (a->grouped ? 1 : rows) : a->start + a->count;
    long padded = ROUND_UP(keys, PANEL);
    long stride = (a->grouped ? d : a->row_width) / unit;
    const uint32_t *q = (const uint32_t *)a->q + (a->grouped ? (long)head * groups * d : (long)head * d) / unit +
                        (long)first_token * a->row_width / unit;
    const uint32_t *k = a->keys + kv * key_words(t, a->capacity), *v = a->values + kv * value_words(t, a->capacity);
    float *scores = pool_scratch(pool, worker, W_SCORES, (size_t)R * padded * 4);
    char *weights = pool_scratch(pool, worker, W_WEIGHTS, (size_t)R * padded * 4);
    long weight_bytes = padded * 4 / unit;
    float scale = 1.0f / sqrtf(d);
    for (int row = 0; row < rows; row += R) {
        int n = MIN(R, rows - row);
        float out[R][PANEL] __attribute__((aligned(64))), inverse[R];
        for (long panel = 0; panel < padded / PANEL; panel++) {
            const uint32_t *w = k + panel * key_units * PANEL, *x = q + row * stride;
            for (int c = 0; c < PANEL; c += W * C) {
                vf sum[R][C];
#define F32_SCORES(rows) tile_f32(rows, C, key_units, x, stride, w + c, PANEL, NULL, sum)
#define BF16_SCORES(rows) tile_bf16(rows, C, key_units, x, stride, w + c, PANEL, NULL, sum)
                if (t->exact) { FOR_ROWS(n, F32_SCORES) } else { FOR_ROWS(n, BF16_SCORES) }
                for (int i = 0; i < n; i++)
                    for (int j = 0; j < C; j++) store(scores + i * padded + panel * PANEL + c + j * W, sum[i][j]);
            }
        }
        for (int i = 0; i < n; i++) {
            long seen = a->causal && !a->grouped ? a->start + first_token + row + i + 1 : keys;
            float *score = scores + i * padded;
            char *weight = weights + i * weight_bytes;
            inverse[i] = softmax_row(score, seen, scale, t->exact, weight);
            long done = ROUND_UP(seen, PANEL) * 4 / unit;
            memset(weight + done, 0, weight_bytes - done);
        }
        for (long first = 0; first < d; first += PANEL) {
            const uint32_t *w = v + first * a->capacity / unit;
            float_tiles(!t->exact, n, padded / unit, (const uint32_t *)weights, w, NULL, MIN(PANEL, d - first), out);
            for (int i = 0; i < n; i++) {
                long token = a->grouped ? first_token : first_token + row + i;
                long column = (a->grouped ? (long)head * groups + row + i : head) * d + first;
                long at = token * t->heads * d + column;
                for (int j = 0; j < MIN(PANEL, d - first); j++) {
                    float value = out[i][j] * inverse[i];
                    if (a->output == TO_BF16)
                        ((uint16_t *)a->y)[at + j] = narrow(value);
                    else
                        ((float *)a->y)[at + j] = value;
                }
            }
        }
    }
}

typedef struct {
    pool_t *pool;
    const attention_t *spans;
    const int *first_task; /* of each span, and their number at the end */
    int count;
} attention_job_t;

static void attention_task(void *job, int task, int worker) {
    const attention_job_t *j = job;
    int s = 0;
    while (task >= j->first_task[s + 1]) s++;
    const attention_t *a = j->spans + s;
    task -= j->first_task[s];
    if (a->grouped) {
        attend(j->pool, a, task, 0, a->tower->heads / a->tower->kv_heads, worker);
        return;
    }
    int head = task % a->tower->heads, first = task / a->tower->heads * a->queries_a_task;
    attend(j->pool, a, head, first, MIN(a->queries_a_task, a->count - first), worker);
}

static void attention(pool_t *pool, int count, attention_t *spans) {
    int *first = pool_scratch(pool, -1, S_TASKS, (count + 1) * sizeof *first);
    first[0] = 0;
    for (int s = 0; s < count; s++) {
        attention_t *a = spans + s;
        a->grouped = a->count == 1;
        a->queries_a_task = 8 * R;
        int tasks = a->grouped ? a->tower->kv_heads
                               : (a->count + a->queries_a_task - 1) / a->queries_a_task * a->tower->heads;
        first[s + 1] = first[s] + tasks;
    }
    attention_job_t job = {pool, spans, first, count};
    pool_run(pool, first[count], attention_task, &job);
}

#endif
