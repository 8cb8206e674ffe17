/* What Python sees: picks the copy of the kernels that suits this processor. */
#include <string.h>
#include "kernels.h"
#include "pack.h"

#define EXPORT __attribute__((visibility("default")))

extern const kernels_t kernels_plain;
#ifdef HAVE_avx512
extern const kernels_t kernels_avx512;
#endif
#ifdef HAVE_avx512vnni
extern const kernels_t kernels_avx512vnni;
#endif
#ifdef HAVE_avxvnni
#include <cpuid.h>
extern const kernels_t kernels_avxvnni;
static int has_avxvnni(void) { /* by hand: not every compiler knows the name */
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif
#ifdef HAVE_avx2
extern const kernels_t kernels_avx2;
#endif
#ifdef HAVE_arm86
#include <sys/auxv.h>
extern const kernels_t kernels_arm86;
enum { CAP2_I8MM = 1 << 13, CAP2_BF16 = 1 << 14 };
#endif

typedef struct {
    const char *name;
    const kernels_t *kernels;
} copy_t;

enum { MOST_COPIES = 5 };

/* All copies that run here, the best first. */
static int copies(copy_t found[MOST_COPIES]) {
    int count = 0;
#if defined(__x86_64__)
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx512 = 0;
    (void)avx2, (void)avx512;
#endif
#ifdef HAVE_avx512vnni
    avx512 = avx2 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
#ifdef HAVE_avx512
    if (avx512 && __builtin_cpu_supports("avx512bf16")) found[count++] = (copy_t){"avx512", &kernels_avx512};
#endif
#ifdef HAVE_avx512vnni
    if (avx512) found[count++] = (copy_t){"avx512vnni", &kernels_avx512vnni};
#endif
#ifdef HAVE_avxvnni
    if (avx2 && has_avxvnni()) found[count++] = (copy_t){"avxvnni", &kernels_avxvnni};
#endif
#ifdef HAVE_avx2
    if (avx2) found[count++] = (copy_t){"avx2", &kernels_avx2};
#endif
#ifdef HAVE_arm86
    if ((getauxval(AT_HWCAP2) & (CAP2_I8MM | CAP2_BF16)) == (CAP2_I8MM | CAP2_BF16))
        found[count++] = (copy_t){"arm86", &kernels_arm86};
#endif
    found[count++] = (copy_t){"plain", &kernels_plain};
    return count;
}

static const kernels_t *kernels;

/* Choose a copy by name, NULL for the best. Returns its name, NULL when it is not in this library or can't run here. */
EXPORT const char *sm_choose(const char *name) {
    copy_t found[MOST_COPIES];
    int count = copies(found);
    for (int i = 0; i < count; i++)
        if (!name || !strcmp(name, found[i].name)) {
            kernels = found[i].kernels;
            return found[i].name;
        }
    return NULL;
}

EXPORT pool_t *sm_start(int workers) {
    if (!kernels) sm_choose(NULL);
    return pool_start(workers);
}
EXPORT void sm_stop(pool_t *pool) { pool_stop(pool); }
EXPORT int sm_workers(const pool_t *pool) { return pool_workers(pool); }

EXPORT void sm_pack(pool_t *pool, int format, int source, int panels, int inputs, const void *const *rows,
                    const void *const *scales, void *to, void *scale) {
    pack(pool, format, source, panels, inputs, rows, scales, to, scale);
}
EXPORT void sm_quantise(pool_t *pool, int format, int source, int rows, int inputs, const void *from, void *to,
                        void *scale) {
    quantise(pool, format, source, rows, inputs, from, to, scale);
}
EXPORT long sm_cache_bytes(const text_t *m, int capacity) { return kernels->cache_bytes(&m->tower, capacity); }
EXPORT void sm_copy(const text_t *m, const void *from, int from_capacity, void *to, int to_capacity, int tokens) {
    kernels->copy_prefix(&m->tower, from, from_capacity, to, to_capacity, tokens);
}
EXPORT void sm_see(pool_t *pool, const vision_t *v, int tiles, const float *pixels, float *features) {
    kernels->see(pool, v, tiles, pixels, features);
}
EXPORT void sm_read(pool_t *pool, const text_t *m, int spans, const span_t *span, float *x, int wanted,
                    const int32_t *rows, float *logits) {
    kernels->read(pool, m, spans, span, x, wanted, rows, logits);
}
EXPORT void sm_multiply(pool_t *pool, const linear_t *w, int rows, const float *x, float *y) {
    kernels->multiply(pool, w, rows, x, y);
}
