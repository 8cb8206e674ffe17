/* Weights as a checkpoint has them -> panels (smolvlm.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "pack.h"

typedef struct {
    int format, source, inputs;
    const void *const *rows; /* [panels * 64], NULL for a row of zeros */
    const void *const *scales;
    uint8_t *panels;
    void *scale;
} pack_t;

static float from_half(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
    union { uint32_t bits; float value; } u;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
    u.bits = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | fraction << 13;
    return u.value;
}

static float from_bf16(uint16_t x) {
    union { uint32_t bits; float value; } u = {(uint32_t)x << 16};
    return u.value;
}

static uint16_t to_bf16(float x) {
    union { float value; uint32_t bits; } u = {x};
    return (uint16_t)((u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16);
}

static void floats(const pack_t *p, const void *row, float *to) {
    if (!row)
        memset(to, 0, p->inputs * sizeof *to);
    else if (p->source == SOURCE_F32)
        memcpy(to, row, p->inputs * sizeof *to);
    else
        for (int i = 0; i < p->inputs; i++) {
            uint16_t bits = ((const uint16_t *)row)[i];
            to[i] = p->source == SOURCE_BF16 ? from_bf16(bits) : from_half(bits);
        }
}

/* A second copy for AVX2, chosen when the library is loaded; without fused products, so that both give the same. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define ALSO_AVX2 __attribute__((target_clones("avx2", "default")))
#else
#define ALSO_AVX2
#endif

enum { LANES = 8 }; /* sums side by side, which compilers make vectors of; adding 1.5 * 2^23 rounds to a whole number */

/* What is lost of a group's values as scale * whole number from -8 to 7: the sum of squares. */
static inline __attribute__((always_inline)) float loss_of(const float *x, float scale) {
    float inverse = 1 / scale, lost[LANES] = {0}, sum = 0;
    for (int i = 0; i < GROUP; i += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            float whole = (x[i + lane] * inverse + 12582912.0f) - 12582912.0f;
            whole = whole < -8 ? -8 : whole;
            whole = whole > 7 ? 7 : whole;
            float off = x[i + lane] - scale * whole;
            lost[lane] += off * off;
        }
    for (int lane = 0; lane < LANES; lane++) sum += lost[lane];
    return sum;
}

/* The scale, exact in bf16, that loses least. */
static inline __attribute__((always_inline)) float best_scale(const float *x) {
    float most = 0, best = 0, least = INFINITY;
    for (int i = 0; i < GROUP; i++)
        if (fabsf(x[i]) > fabsf(most)) most = x[i];
    if (most == 0) return 0;
    for (int step = -4; step <= 6; step++) {
        float scale = from_bf16(to_bf16(most / (-8.0f + 0.25f * step)));
        if (scale == 0) continue;
        float lost = loss_of(x, scale);
        if (lost < least) least = lost, best = scale;
    }
    return best;
}

/* halves: [inputs / 2], scale: [inputs / 32] bf16. */
ALSO_AVX2 static void quantise_int4(const float *x, int inputs, uint8_t *halves, uint16_t *scale) {
    for (int g = 0; g < inputs / GROUP; g++, x += GROUP, halves += GROUP / 2) {
        float best = best_scale(x), inverse = best != 0 ? 1 / best : 0;
        uint8_t whole[GROUP];
        scale[g] = to_bf16(best);
        for (int i = 0; i < GROUP; i++) {
            float value = rintf(x[i] * inverse);
            whole[i] = (uint8_t)((value < -8 ? -8 : value > 7 ? 7 : value) + 8);
        }
        for (int i = 0; i < GROUP / 2; i++) halves[i] = (uint8_t)(whole[i] | whole[i + GROUP / 2] << 4);
    }
}

static void quantise_int8(const float *x, int inputs, int8_t *values, float *scale) {
    float most = 0;
    for (int i = 0; i < inputs; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    float inverse = most > 0 ? 127.0f / most : 0;
    *scale = most / 127.0f;
    for (int i = 0; i < inputs; i++) values[i] = (int8_t)rintf(x[i] * inverse);
}

static void place_int4(const pack_t *p, const uint8_t *halves, const uint16_t *scale, int panel, int column) {
    long groups = p->inputs / GROUP;
    uint8_t *to = p->panels + (long)panel * p->inputs / 2 * PANEL;
    uint16_t *scales = (uint16_t *)p->scale + panel * groups * PANEL;
    for (long g = 0; g < groups; g++, halves += GROUP / 2) {
        scales[g * PANEL + column] = scale[g];
        for (int i = 0; i < GROUP / 2; i++) to[((g * 4 + i / 4) * PANEL + column) * 4 + i % 4] = halves[i];
    }
}

static void place_int8(const pack_t *p, const int8_t *values, float scale, int panel, int column) {
    uint8_t *to = p->panels + (long)panel * p->inputs * PANEL;
    ((float *)p->scale)[panel * PANEL + column] = scale;
    for (int i = 0; i < p->inputs; i++) to[((long)i / 4 * PANEL + column) * 4 + i % 4] = (uint8_t)(values[i] + 128);
}

static void *room_for(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory) abort();
    return memory;
}

static void pack_task(void *job, int panel, int worker) {
    const pack_t *p = job;
    (void)worker;
    int is_float = p->source <= SOURCE_F16;
    float *x = room_for(p->inputs * sizeof *x);
    int8_t *values = room_for(p->inputs);
    uint16_t *group_scale = room_for((p->inputs / GROUP + 1) * sizeof *group_scale);
    float scale = 0;
    for (int column = 0; column < PANEL; column++) {
        long at = (long)panel * PANEL + column;
        const void *row = p->rows[at], *given = p->scales ? p->scales[at] : NULL;
        int known = row && !is_float; /* quantised before; a row of zeros never is */
        if (!known) floats(p, row, x);
        if (p->format == INT4) {
            if (!known) quantise_int4(x, p->inputs, (uint8_t *)values, group_scale);
            place_int4(p, known ? row : (void *)values, known ? given : group_scale, panel, column);
        } else if (p->format == INT8) {
            if (!known) quantise_int8(x, p->inputs, values, &scale);
            place_int8(p, known ? row : values, known ? *(const float *)given : scale, panel, column);
        } else if (p->format == BF16)
            for (int i = 0; i < p->inputs; i++)
                ((uint16_t *)p->panels)[(((long)panel * p->inputs / 2 + i / 2) * PANEL + column) * 2 + i % 2] = to_bf16(x[i]);
        else
            for (int i = 0; i < p->inputs; i++)
                ((float *)p->panels)[((long)panel * p->inputs + i) * PANEL + column] = x[i];
    }
    free(x), free(values), free(group_scale);
}

void pack(pool_t *pool, int format, int source, int panels, int inputs, const void *const *rows,
          const void *const *scales, void *to, void *scale) {
    pack_t job = {format, source, inputs, rows, scales, to, scale};
    pool_run(pool, panels, pack_task, &job);
}

typedef struct {
    pack_t pack;
    const uint8_t *from;
    uint8_t *to, *scale;
} quantise_t;

static void quantise_task(void *job, int row, int worker) {
    const quantise_t *q = job;
    long n = q->pack.inputs;
    (void)worker;
    float *x = room_for(n * sizeof *x);
    floats(&q->pack, q->from + row * n * (q->pack.source == SOURCE_F32 ? 4 : 2), x);
    if (q->pack.format == INT4)
        quantise_int4(x, n, q->to + row * n / 2, (uint16_t *)q->scale + row * n / GROUP);
    else
        quantise_int8(x, n, (int8_t *)q->to + row * n, (float *)q->scale + row);
    free(x);
}

void quantise(pool_t *pool, int format, int source, int rows, int inputs, const void *from, void *to, void *scale) {
    quantise_t job = {{format, source, inputs, NULL, NULL, NULL, NULL}, from, to, scale};
    pool_run(pool, rows, quantise_task, &job);
}
