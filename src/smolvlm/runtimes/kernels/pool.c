/* Threads that wait for work: a short while in a loop, because the next operator follows within microseconds, then
   asleep. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "pool.h"

enum { SPINS = 20000, SLABS = 13, MAX_WORKERS = 256 };

typedef struct {
    void *memory[SLABS];
    size_t bytes[SLABS];
} slabs_t;

typedef struct {
    pool_t *pool;
    int index;
} seat_t;

struct pool {
    int workers; /* the calling thread is number 0 */
    pthread_t thread[MAX_WORKERS];
    seat_t seat[MAX_WORKERS];
    slabs_t slabs[MAX_WORKERS + 1];
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int stopping;
    task_t task;
    void *job;
    int tasks;
    _Alignas(64) atomic_uint round;
    _Alignas(64) atomic_int next;
    _Alignas(64) atomic_int busy; /* workers that may be at a task */
    atomic_int open;              /* there may be tasks left: a worker that comes late finds it 0 and costs nothing */
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_tasks(pool_t *p, int worker) {
    for (;;) {
        int task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= p->tasks) return;
        p->task(p->job, task, worker);
    }
}

static void *work(void *argument) {
    seat_t *seat = argument;
    pool_t *p = seat->pool;
    unsigned seen = 0;
    for (;;) {
        int spins = 0;
        while (atomic_load_explicit(&p->round, memory_order_acquire) == seen && spins++ < SPINS) relax();
        if (atomic_load_explicit(&p->round, memory_order_acquire) == seen) {
            pthread_mutex_lock(&p->mutex);
            while (atomic_load_explicit(&p->round, memory_order_acquire) == seen) pthread_cond_wait(&p->wake, &p->mutex);
            pthread_mutex_unlock(&p->mutex);
        }
        seen = atomic_load_explicit(&p->round, memory_order_acquire);
        if (p->stopping) return NULL;
        atomic_fetch_add(&p->busy, 1);
        if (atomic_load(&p->open)) take_tasks(p, seat->index);
        atomic_fetch_sub(&p->busy, 1);
    }
}

static void start_round(pool_t *p) {
    pthread_mutex_lock(&p->mutex); /* so that no one falls asleep between looking and waiting */
    atomic_fetch_add_explicit(&p->round, 1, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
}

pool_t *pool_start(int workers) {
    pool_t *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p) return NULL;
    *p = (pool_t){.workers = 1};
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    if (workers > MAX_WORKERS) workers = MAX_WORKERS;
    for (int i = 1; i < workers; i++) {
        p->seat[i] = (seat_t){p, i};
        if (pthread_create(&p->thread[i], NULL, work, &p->seat[i])) break;
        p->workers++;
    }
    return p;
}

void pool_stop(pool_t *p) {
    p->stopping = 1;
    start_round(p);
    for (int i = 1; i < p->workers; i++) pthread_join(p->thread[i], NULL);
    for (int i = 0; i <= MAX_WORKERS; i++)
        for (int j = 0; j < SLABS; j++) free(p->slabs[i].memory[j]);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

int pool_workers(const pool_t *p) { return p->workers; }

void pool_run(pool_t *p, int tasks, task_t task, void *job) {
    if (tasks <= 1 || p->workers == 1) {
        for (int i = 0; i < tasks; i++) task(job, i, 0);
        return;
    }
    p->task = task, p->job = job, p->tasks = tasks;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store(&p->open, 1);
    start_round(p);
    take_tasks(p, 0);
    atomic_store(&p->open, 0);
    while (atomic_load(&p->busy)) relax();
}

void *pool_scratch(pool_t *p, int worker, int which, size_t bytes) {
    slabs_t *slabs = &p->slabs[worker + 1];
    if (slabs->bytes[which] < bytes) {
        free(slabs->memory[which]);
        slabs->bytes[which] = (bytes + 4095) / 4096 * 4096;
        slabs->memory[which] = aligned_alloc(64, slabs->bytes[which]);
        if (!slabs->memory[which]) abort();
    }
    return slabs->memory[which];
}
