/* Weights as a checkpoint has them -> panels (smolvlm.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "pack.h"

typedef struct {
    int format, source, inputs;
    const void *const *rows; /* [panels * 64], NULL for a row of zeros */
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

/* The scale, exact in bf16, with the least squared error of value = scale * whole number from -8 to 7. */
static float best_scale(const float *x) {
    float most = 0, best = 0, least = INFINITY;
    for (int i = 0; i < GROUP; i++)
        if (fabsf(x[i]) > fabsf(most)) most = x[i];
    if (most == 0) return 0;
    for (int step = -4; step <= 6; step++) {
        float scale = from_bf16(to_bf16(most / (-8.0f + 0.25f * step))), inverse = 1 / scale, error = 0;
        if (scale == 0) continue;
        for (int i = 0; i < GROUP; i++) {
            float whole = rintf(x[i] * inverse);
            whole = whole < -8 ? -8 : whole > 7 ? 7 : whole;
            float off = x[i] - scale * whole;
            error += off * off;
        }
        if (error < least) least = error, best = scale;
    }
    return best;
}

static void pack_int4(const pack_t *p, const float *x, int panel, int column) {
    long groups = p->inputs / GROUP;
    uint8_t *to = p->panels + (long)panel * p->inputs / 2 * PANEL;
    uint16_t *scale = (uint16_t *)p->scale + panel * groups * PANEL;
    for (long g = 0; g < groups; g++, x += GROUP) {
        float best = best_scale(x), inverse = best != 0 ? 1 / best : 0;
        uint8_t halves[GROUP];
        scale[g * PANEL + column] = to_bf16(best);
        for (int i = 0; i < GROUP; i++) {
            float whole = rintf(x[i] * inverse);
            halves[i] = (uint8_t)((whole < -8 ? -8 : whole > 7 ? 7 : whole) + 8);
        }
        for (int i = 0; i < GROUP / 2; i++)
            to[((g * 4 + i / 4) * PANEL + column) * 4 + i % 4] = (uint8_t)(halves[i] | halves[i + GROUP / 2] << 4);
    }
}

static void pack_int8(const pack_t *p, const float *x, int panel, int column) {
    float most = 0;
    for (int i = 0; i < p->inputs; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    float inverse = most > 0 ? 127.0f / most : 0;
    uint8_t *to = p->panels + (long)panel * p->inputs * PANEL;
    ((float *)p->scale)[panel * PANEL + column] = most / 127.0f;
    for (int i = 0; i < p->inputs; i++)
        to[((long)i / 4 * PANEL + column) * 4 + i % 4] = (uint8_t)(rintf(x[i] * inverse) + 128);
}

static void pack_task(void *job, int panel, int worker) {
    const pack_t *p = job;
    (void)worker;
    float *x = malloc(p->inputs * sizeof *x);
    if (!x) abort();
    for (int column = 0; column < PANEL; column++) {
        const void *row = p->rows[(long)panel * PANEL + column];
        floats(p, row, x);
        if (p->format == INT4)
            pack_int4(p, x, panel, column);
        else if (p->format == INT8)
            pack_int8(p, x, panel, column);
        else if (p->format == BF16)
            for (int i = 0; i < p->inputs; i++)
                ((uint16_t *)p->panels)[(((long)panel * p->inputs / 2 + i / 2) * PANEL + column) * 2 + i % 2] = to_bf16(x[i]);
        else
            for (int i = 0; i < p->inputs; i++)
                ((float *)p->panels)[((long)panel * p->inputs + i) * PANEL + column] = x[i];
    }
    free(x);
}

void pack(pool_t *pool, int format, int source, int panels, int inputs, const void *const *rows, void *to, void *scale) {
    pack_t job = {format, source, inputs, rows, to, scale};
    pool_run(pool, panels, pack_task, &job);
}
