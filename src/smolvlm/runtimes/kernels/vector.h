/* Vectors of the width that the compiler's target has, and what is made of them. Vectors are GCC's and Clang's own; only
   the products of bf16 and int8 name instructions. */
#ifndef VECTOR_H
#define VECTOR_H

#include <math.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* W floats a vector, a tile of up to R rows by C vectors is held in registers. */
#if defined(__AVX512F__)
enum { W = 16, C = 4, R = 6 };
#elif defined(__AVX2__)
enum { W = 8, C = 2, R = 6 };
#else
enum { W = 4, C = 4, R = 4 };
#endif

typedef float vf __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * W), aligned(2), may_alias));
typedef uint8_t vb __attribute__((vector_size(W), aligned(1), may_alias));

#define ALWAYS static inline __attribute__((always_inline))
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ROUND_UP(a, b) (((a) + (b) - 1) / (b) * (b))

ALWAYS vf splat(float x) { return x - (vf){0}; }
ALWAYS vu splat_bits(uint32_t x) { return x - (vu){0}; }
ALWAYS vf load(const float *p) { return *(const vf *)p; }
ALWAYS void store(float *p, vf x) { *(vf *)p = x; }
ALWAYS vf maximum(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vi more = a > b;
    return (vf)(((vi)a & more) | ((vi)b & ~more));
#endif
}
ALWAYS vf minimum(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return -maximum(-a, -b);
#endif
}
ALWAYS float sum_of(vf x) {
    float sum = 0;
    for (int i = 0; i < W; i++) sum += x[i];
    return sum;
}
ALWAYS int32_t total_of(vi x) {
    int32_t sum = 0;
    for (int i = 0; i < W; i++) sum += x[i];
    return sum;
}
ALWAYS float largest_of(vf x) {
    float most = x[0];
    for (int i = 1; i < W; i++) most = MAX(most, x[i]);
    return most;
}

ALWAYS vf magnitude(vf x) { return (vf)((vu)x & 0x7fffffff); }
/* To the nearest whole number, ties to even, of values below 2^22. */
ALWAYS vi rounded(vf x) { return (vi)(x + 12582912.0f) - 0x4b400000; }

/* `rows` is a constant wherever these are inlined. */
#define FOR_ROWS(n, CALL)                          \
    switch (n) {                                   \
        case 1: CALL(1); break;                    \
        case 2: CALL(2); break;                    \
        case 3: CALL(3); break;                    \
        case 4: CALL(MIN(4, R)); break;            \
        case 5: CALL(MIN(5, R)); break;            \
        default: CALL(R);                          \
    }

/* ---- bf16 ---- */

ALWAYS float widen(uint16_t x) {
    union { uint32_t bits; float value; } u = {(uint32_t)x << 16};
    return u.value;
}
ALWAYS uint16_t narrow(float x) { /* to the nearest, ties to even */
    union { float value; uint32_t bits; } u = {x};
    return (u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16;
}
ALWAYS void store_bf16(uint16_t *p, vf x) {
#if defined(__AVX512BF16__)
    *(vh *)p = (vh)_mm512_cvtneps_pbh((__m512)x); /* likewise; what is too small for a normal number becomes 0 */
#else
    vu bits = (vu)x;
    *(vh *)p = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, vh);
#endif
}
ALWAYS vf load_bf16(const uint16_t *p) { return (vf)(__builtin_convertvector(*(const vh *)p, vu) << 16); }

/* ---- exp and what is made of it; relative error below 2e-7 ---- */

ALWAYS vf exponential(vf x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    x = minimum(maximum(x, splat(-87.0f)), splat(88.0f));
    vf whole = x * 1.44269504f + magic;
    vi power = (vi)whole << 23;
    whole -= magic;
    vf r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vf y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    return (vf)((vi)y + power);
}
ALWAYS vf silu(vf x) { return x / (1.0f + exponential(-x)); }
ALWAYS vf gelu_tanh(vf x) { /* x / 2 * (1 + tanh(u)) = x / (1 + exp(-2 u)) */
    vf u = x * (0.7978845608f + 0.0356774081f * x * x);
    return x / (1.0f + exponential(-2.0f * u));
}

/* ---- one unit of a product ---- */

ALWAYS vf dot_f32(vf sum, vu x, vu w) { return sum + (vf)x * (vf)w; }

ALWAYS vf dot_bf16(vf sum, vu x, vu w) {
#if defined(__AVX512BF16__)
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return (vf)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)x, (bfloat16x8_t)w);
#else
    sum += (vf)(x << 16) * (vf)(w << 16);
    return sum + (vf)(x & 0xffff0000) * (vf)(w & 0xffff0000);
#endif
}

/* w: four bytes from 0 to 255, x: four from -128 to 127. */
ALWAYS vi dot_int8(vi sum, vu x, vu w) {
#if defined(__AVX512VNNI__)
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#elif defined(__AVXVNNI__)
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
#elif defined(__AVX2__)
    __m256i low = _mm256_set1_epi16(0xff), values = (__m256i)x, weights = (__m256i)w;
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(weights, low), _mm256_srai_epi16(_mm256_slli_epi16(values, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(weights, 8), _mm256_srai_epi16(values, 8));
    return sum + (vi)even + (vi)odd;
#elif defined(__ARM_FEATURE_MATMUL_INT8)
    return (vi)vusdotq_s32((int32x4_t)sum, (uint8x16_t)w, (int8x16_t)x);
#else
    for (int byte = 0; byte < 4; byte++)
        sum += (vi)((w >> (8 * byte)) & 0xff) * ((vi)(x << (24 - 8 * byte)) >> 24);
    return sum;
#endif
}

/* A tile of `rows` x `vectors` (at most C) over `units`. x: rows of `stride` units; w: from the tile's first column on, lines
   of `width`, which is PANEL in a panel. ahead: weights that are wanted next; a line of them is fetched with each unit, as multiplying leaves the memory idle. */
#define DEFINE_TILE(NAME, TYPE, DOT)                                                                \
    ALWAYS void NAME(const int rows, const int vectors, long units, const uint32_t *x, long stride, \
                     const uint32_t *w, long width, const char *ahead, TYPE sum[R][C]) {            \
        for (int i = 0; i < rows; i++)                                                              \
            for (int j = 0; j < vectors; j++) sum[i][j] = (TYPE){0};                                \
        for (long u = 0; u < units; u++, w += width) {                                              \
            vu column[C];                                                                           \
            if (ahead) __builtin_prefetch(ahead + 64 * u, 0, 2);                                    \
            for (int j = 0; j < vectors; j++) column[j] = *(const vu *)(w + j * W);                 \
            for (int i = 0; i < rows; i++) {                                                        \
                vu value = splat_bits(x[i * stride + u]);                                           \
                for (int j = 0; j < vectors; j++) sum[i][j] = DOT(sum[i][j], value, column[j]);     \
            }                                                                                       \
        }                                                                                           \
    }
DEFINE_TILE(tile_f32, vf, dot_f32)
DEFINE_TILE(tile_bf16, vf, dot_bf16)
DEFINE_TILE(tile_int8, vi, dot_int8)

#endif
