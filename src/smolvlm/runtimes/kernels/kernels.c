/* Both towers, operator by operator. Compiled once for each instruction set: ISA names the copy, the compiler's target
   flags choose the width of the vectors. */
#include "attention.h"
#include "product.h"

/* ---- norms ---- */

typedef struct {
    const tower_t *tower;
    const float *x, *weight, *bias;
    void *y;
    int output;
} norm_t;

static void norm_task(void *job, int row, int worker) {
    const norm_t *p = job;
    (void)worker;
    int n = p->tower->hidden, whole = n / W * W;
    const float *x = p->x + (long)row * n;
    float mean = 0, square = 0;
    vf sums = {0};
    if (p->bias) {
        for (int i = 0; i < whole; i += W) sums += load(x + i);
        mean = sum_of(sums);
        for (int i = whole; i < n; i++) mean += x[i];
        mean /= n;
        sums = (vf){0};
    }
    for (int i = 0; i < whole; i += W) sums += (load(x + i) - mean) * (load(x + i) - mean);
    square = sum_of(sums);
    for (int i = whole; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    float factor = 1.0f / sqrtf(square / n + p->tower->eps);
    float *y = (float *)p->y + (long)row * n;
    uint16_t *half = (uint16_t *)p->y + (long)row * n;
    for (int i = 0; i < whole; i += W) {
        vf value = (load(x + i) - mean) * factor * load(p->weight + i);
        if (p->bias) value += load(p->bias + i);
        if (p->output == TO_BF16)
            store_bf16(half + i, value);
        else
            store(y + i, value);
    }
    for (int i = whole; i < n; i++) {
        float value = (x[i] - mean) * factor * p->weight[i] + (p->bias ? p->bias[i] : 0);
        if (p->output == TO_BF16)
            half[i] = narrow(value);
        else
            y[i] = value;
    }
}

/* RMSNorm without a bias, LayerNorm with one. */
static void norm(pool_t *pool, const tower_t *t, int rows, const float *x, const float *weight, const float *bias,
                 int output, void *y) {
    norm_t job = {t, x, weight, bias, y, output};
    pool_run(pool, rows, norm_task, &job);
}

/* ---- the vision tower ---- */

typedef struct {
    const vision_t *v;
    const float *pixels; /* of one tile */
    void *rows;
} patches_t;

static void patch_task(void *job, int patch, int worker) {
    const patches_t *p = job;
    (void)worker;
    int size = p->v->patch, across = p->v->across;
    long n = 3L * size * size, at = patch * n;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < size; y++) {
            const float *line = p->pixels + ((long)c * p->v->side + patch / across * size + y) * p->v->side +
                                (long)(patch % across) * size;
            for (int x = 0; x < size; x++, at++)
                if (p->v->tower.exact)
                    ((float *)p->rows)[at] = line[x];
                else
                    ((uint16_t *)p->rows)[at] = narrow(line[x]);
        }
}

/* Keys and values of a whole tile, one head a task, straight from the rows of q, k and v. */
static void fill_task(void *job, int head, int worker) {
    const attention_t *a = job;
    const tower_t *t = a->tower;
    (void)worker;
    long bytes = t->exact ? 4 : 2, hidden = (long)t->heads * t->head_dim, line = a->row_width * bytes;
    const char *keys = (const char *)a->qkv + (hidden + (long)head * t->head_dim) * bytes;
    const char *values = keys + hidden * bytes;
    int paired = t->exact ? 0 : a->count / 2 * 2;
    for (int token = 0; token < a->count; token++) put_key(a, head, token, (const uint32_t *)(keys + token * line));
    for (int token = 0; token < paired; token += 2)
        put_value_pair(a, head, token, (const uint16_t *)(values + token * line), (const uint16_t *)(values + (token + 1) * line));
    for (int token = paired; token < a->count; token++) put_value(a, head, token, values + token * line);
}

static void shuffle_pixels(const vision_t *v, const void *x, long bytes, void *y) {
    int across = v->across, s = v->scale, small = across / s;
    long line = v->tower.hidden * bytes;
    char *to = y;
    for (int token = 0; token < small * small; token++)
        for (int row = 0; row < s; row++) {
            int from = (token / small * s + row) * across + token % small * s;
            memcpy(to, (const char *)x + from * line, s * line);
            to += s * line;
        }
}

static void see_tile(pool_t *pool, const vision_t *v, const float *pixels, float *features) {
    const tower_t *t = &v->tower;
    int across = v->across, n = across * across;
    int half = t->exact ? TO_F32 : TO_BF16;
    long bytes = t->exact ? 4 : 2, capacity = ROUND_UP(n, PANEL);
    float *x = pool_scratch(pool, -1, S_X, (size_t)n * t->hidden * 4);
    void *a = pool_scratch(pool, -1, S_A, (size_t)n * MAX(t->hidden, v->patches.inputs) * 4);
    void *b = pool_scratch(pool, -1, S_B, (size_t)n * MAX(t->intermediate, t->hidden) * 4);
    void *qkv = pool_scratch(pool, -1, S_QKV, (size_t)n * 3 * t->hidden * 4);
    long keys = key_words(t, capacity) * t->heads, values = value_words(t, capacity) * t->heads;
    uint32_t *cache = pool_scratch(pool, -1, S_CACHE, (size_t)(keys + values) * 4);
    memset(cache, 0, (size_t)(keys + values) * 4); /* what fills up the panels must be finite */

    patches_t cut = {v, pixels, a};
    pool_run(pool, n, patch_task, &cut);
    memcpy(x, v->positions, (size_t)n * t->hidden * 4);
    product_of(pool, &v->patches, n, a, PLAIN, ADD_TO_F32, x);
    for (int i = 0; i < t->layers; i++) {
        const layer_t *l = t->layer + i;
        norm(pool, t, n, x, l->norm1, l->norm1_bias, half, a);
        product_of(pool, &l->qkv, n, a, PLAIN, half, qkv);
        attention_t look = {t, cache, cache + keys, capacity, 0, n, qkv, 3 * t->hidden, qkv, a, half, 0, 0, 0};
        pool_run(pool, t->heads, fill_task, &look);
        attention(pool, 1, &look);
        product_of(pool, &l->out, n, a, PLAIN, ADD_TO_F32, x);
        norm(pool, t, n, x, l->norm2, l->norm2_bias, half, a);
        product_of(pool, &l->up, n, a, GELU, half, b);
        product_of(pool, &l->down, n, b, PLAIN, ADD_TO_F32, x);
    }
    norm(pool, t, n, x, t->norm, t->norm_bias, half, a);
    shuffle_pixels(v, a, bytes, b);
    int tokens = n / (v->scale * v->scale);
    product_of(pool, &v->connector, tokens, b, PLAIN, TO_F32, features);
}

static void see(pool_t *pool, const vision_t *v, int tiles, const float *pixels, float *features) {
    long size = 3L * v->side * v->side, across = v->across;
    long tokens = across * across / (v->scale * v->scale);
    for (int i = 0; i < tiles; i++)
        see_tile(pool, v, pixels + i * size, features + i * tokens * v->connector.outputs);
}

/* ---- the text model ---- */

typedef struct {
    const tower_t *tower;
    const float *qkv; /* rows of q, k and v */
    const float *turn; /* rows of head_dim / 2 cosines, then sines */
    void *q;           /* rows of q, turned, for attention */
    attention_t *spans;
    const int *first_row; /* of each span */
} turn_t;

/* Turn one row's queries and keys by their position (the halves of head_dim are the pairs), store keys and values. */
static void turn_task(void *job, int row, int worker) {
    const turn_t *p = job;
    const tower_t *t = p->tower;
    (void)worker;
    int d = t->head_dim, half = d / 2, s = 0;
    while (row >= p->first_row[s + 1]) s++;
    const attention_t *a = p->spans + s;
    const float *from = p->qkv + (long)row * (t->heads + 2 * t->kv_heads) * d;
    const float *cosine = p->turn + (long)row * d, *sine = cosine + half;
    for (int head = 0; head < t->heads + 2 * t->kv_heads; head++, from += d) {
        float turned[512] __attribute__((aligned(64)));
        uint16_t narrowed[512] __attribute__((aligned(64)));
        if (head < t->heads + t->kv_heads)
            for (int i = 0; i < half; i++) {
                turned[i] = from[i] * cosine[i] - from[i + half] * sine[i];
                turned[i + half] = from[i + half] * cosine[i] + from[i] * sine[i];
            }
        else
            memcpy(turned, from, d * sizeof *from);
        const void *value = turned;
        if (!t->exact) {
            for (int i = 0; i < d; i++) narrowed[i] = narrow(turned[i]);
            value = narrowed;
        }
        long bytes = t->exact ? 4 : 2, token = a->start + row - p->first_row[s];
        if (head < t->heads)
            memcpy((char *)p->q + ((long)row * t->heads + head) * d * bytes, value, d * bytes);
        else if (head < t->heads + t->kv_heads)
            put_key(a, head - t->heads, token, value);
        else
            put_value(a, head - t->heads - t->kv_heads, token, value);
    }
}

static long layer_words(const tower_t *t, long capacity) {
    return (key_words(t, capacity) + value_words(t, capacity)) * t->kv_heads;
}

/* Rows that follow each other and are read by one model. */
typedef struct {
    const text_t *model;
    int rows;
} group_t;

typedef struct {
    pool_t *pool;
    int count;
    group_t *group;
    share_t *share; /* room for as many */
} groups_t;

static void add_rows(groups_t *all, const text_t *model, int rows) {
    if (rows && (!all->count || all->group[all->count - 1].model != model))
        all->group[all->count++] = (group_t){model, 0};
    if (rows) all->group[all->count - 1].rows += rows;
}

/* A product of a layer, behind the last one the head; each group has its own matrices. part: offset in a layer_t. */
static void products(const groups_t *all, int layer, size_t part, const void *x, int activation, int output, void *y) {
    for (int g = 0; g < all->count; g++) {
        const text_t *m = all->group[g].model;
        const void *own = (const char *)(m->tower.layer + layer) + part;
        all->share[g] = (share_t){layer < m->tower.layers ? own : &m->head, all->group[g].rows};
    }
    product(all->pool, all->share, all->count, x, activation, output, y);
}

static const float *norm_of(const group_t *g, int layer, size_t part) {
    const tower_t *t = &g->model->tower;
    return layer < t->layers ? *(const float *const *)((const char *)(t->layer + layer) + part) : t->norm;
}

/* Likewise a norm of a layer, behind the last one the tower's. */
static void norms(const groups_t *all, int layer, size_t part, const float *x, int output, void *y) {
    for (int g = 0, from = 0, to = 0; g < all->count; from = to) {
        const tower_t *t = &all->group[g].model->tower;
        const float *weight = norm_of(all->group + g, layer, part);
        while (g < all->count && norm_of(all->group + g, layer, part) == weight) to += all->group[g++].rows;
        norm(all->pool, t, to - from, x + (long)from * t->hidden, weight, NULL, output,
             (char *)y + (long)from * t->hidden * (output == TO_BF16 ? 2 : 4));
    }
}

/* x: the spans' embeddings one after another, overwritten. rows: which of them are wanted, ascending; logits: one line
   for each. m: one of the models, whose shapes and formats are all the others', too. */
static void read_tokens(pool_t *pool, const text_t *m, int count, const span_t *given, float *x, int wanted,
                        const int32_t *rows, float *logits) {
    const tower_t *t = &m->tower;
    int n = 0, d = t->head_dim, qkv_width = (t->heads + 2 * t->kv_heads) * d;
    for (int s = 0; s < count; s++) n += given[s].count;
    size_t span_bytes = ROUND_UP(count * sizeof(attention_t), 64);
    attention_t *spans = pool_scratch(pool, -1, S_CACHE, span_bytes + (count + 1) * sizeof(int));
    int *first_row = (int *)((char *)spans + span_bytes);
    float *turn = pool_scratch(pool, -1, S_TURN, (size_t)n * d * 4);
    void *a = pool_scratch(pool, -1, S_A, (size_t)MAX(n, wanted) * MAX(t->hidden, t->heads * d) * 4);
    void *b = pool_scratch(pool, -1, S_B, (size_t)MAX(n, wanted) * MAX(t->intermediate, t->heads * d) * 4);
    float *qkv = pool_scratch(pool, -1, S_QKV, (size_t)n * qkv_width * 4);
    void *q = pool_scratch(pool, -1, S_X, (size_t)n * t->heads * d * 4);
    groups_t all = {pool, 0, pool_scratch(pool, -1, S_GROUPS, count * (sizeof(group_t) + sizeof(share_t))), NULL};
    all.share = (share_t *)(all.group + count);

    first_row[0] = 0;
    for (int s = 0; s < count; s++) {
        add_rows(&all, given[s].model, given[s].count);
        first_row[s + 1] = first_row[s] + given[s].count;
        for (int i = 0; i < given[s].count; i++)
            for (int pair = 0; pair < d / 2; pair++) {
                float inverse = 1.0f / powf(t->theta, (float)(2 * pair) / d);
                float angle = (float)(given[s].start + i) * inverse;
                turn[(long)(first_row[s] + i) * d + pair] = cosf(angle);
                turn[(long)(first_row[s] + i) * d + d / 2 + pair] = sinf(angle);
            }
    }
    for (int i = 0; i < t->layers; i++) {
        const layer_t *l = t->layer + i;
        int as_out = written_as(&l->out, n);
        for (int s = 0; s < count; s++) {
            uint32_t *keys = (uint32_t *)given[s].cache + i * layer_words(t, given[s].capacity);
            spans[s] = (attention_t){
                .tower = t, .keys = keys, .values = keys + key_words(t, given[s].capacity) * t->kv_heads,
                .capacity = given[s].capacity, .start = given[s].start, .count = given[s].count,
                .row_width = t->heads * d, .q = (char *)q + (long)first_row[s] * t->heads * d * (t->exact ? 4 : 2),
                .y = (char *)a + (long)first_row[s] * t->heads * d * (as_out == TO_F32 ? 4 : 2),
                .output = as_out, .causal = 1,
            };
        }
        norms(&all, i, offsetof(layer_t, norm1), x, written_as(&l->qkv, n), a);
        products(&all, i, offsetof(layer_t, qkv), a, PLAIN, TO_F32, qkv);
        turn_t job = {t, qkv, turn, q, spans, first_row};
        pool_run(pool, n, turn_task, &job);
        attention(pool, count, spans);
        products(&all, i, offsetof(layer_t, out), a, PLAIN, ADD_TO_F32, x);
        norms(&all, i, offsetof(layer_t, norm2), x, written_as(&l->up, n), a);
        products(&all, i, offsetof(layer_t, up), a, GATED, written_as(&l->down, n), b);
        products(&all, i, offsetof(layer_t, down), b, PLAIN, ADD_TO_F32, x);
    }
    if (!wanted) return;
    float *last = b;
    all.count = 0;
    for (int i = 0, s = 0; i < wanted; i++) {
        while (rows[i] >= first_row[s + 1]) s++;
        add_rows(&all, given[s].model, 1);
        memcpy(last + (long)i * t->hidden, x + (long)rows[i] * t->hidden, t->hidden * 4L);
    }
    norms(&all, t->layers, 0, last, written_as(&m->head, wanted), a);
    products(&all, t->layers, 0, a, PLAIN, TO_F32, logits);
}

/* For measurements and tests: y = W x for float rows. */
static void multiply(pool_t *pool, const linear_t *w, int rows, const float *x, float *y) {
    long n = (long)rows * w->inputs;
    const void *given = x;
    if (written_as(w, rows) == TO_BF16) {
        uint16_t *half = pool_scratch(pool, -1, S_A, (size_t)n * 2);
        for (long i = 0; i < n; i++) half[i] = narrow(x[i]);
        given = half;
    }
    product_of(pool, w, rows, given, PLAIN, TO_F32, y);
}

static long cache_bytes(const tower_t *t, int capacity) { return t->layers * layer_words(t, capacity) * 4; }

/* Whole panels of keys and whole units of values: what comes after `tokens` in them is overwritten before it is read. */
static void copy_prefix(const tower_t *t, const uint32_t *from, int from_capacity, uint32_t *to, int to_capacity,
                        int tokens) {
    long keys = key_words(t, ROUND_UP(tokens, PANEL)), values = ROUND_UP(tokens, 2) / unit_of(t) * PANEL;
    for (int i = 0; i < t->layers; i++) {
        for (int head = 0; head < t->kv_heads; head++)
            memcpy(to + head * key_words(t, to_capacity), from + head * key_words(t, from_capacity), keys * 4);
        const uint32_t *from_values = from + t->kv_heads * key_words(t, from_capacity);
        uint32_t *to_values = to + t->kv_heads * key_words(t, to_capacity);
        for (int panel = 0; panel < t->kv_heads * (ROUND_UP(t->head_dim, PANEL) / PANEL); panel++)
            memcpy(to_values + (long)panel * to_capacity / unit_of(t) * PANEL,
                   from_values + (long)panel * from_capacity / unit_of(t) * PANEL, values * 4);
        from += layer_words(t, from_capacity), to += layer_words(t, to_capacity);
    }
}

const kernels_t JOIN(kernels_, ISA) = {see, read_tokens, cache_bytes, copy_prefix, multiply};
