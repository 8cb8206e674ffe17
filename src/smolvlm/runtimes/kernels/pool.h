#ifndef POOL_H
#define POOL_H
#include <stddef.h>
#include "smolvlm.h"

typedef void (*task_t)(void *job, int task, int worker);

pool_t *pool_start(int workers);
void pool_stop(pool_t *);
int pool_workers(const pool_t *);
/* Run task 0 .. tasks - 1, in any order, on all workers; returns when all are done. Tasks are taken one by one, so a
   worker that the system holds up costs no more than its task. */
void pool_run(pool_t *, int tasks, task_t, void *job);
/* Scratch memory that stays until the pool stops; `worker` < 0 is shared. The content does not survive a growth. */
void *pool_scratch(pool_t *, int worker, int which, size_t bytes);
#endif
