/* A wall clock that can be set while a process runs, for that process alone: LD_PRELOAD this, name a file of 8 bytes in
 * CHAOS_CLOCK, and write into it how far the clock is off (nanoseconds, native int64). Takes effect at once.
 *
 * Only CLOCK_REALTIME is moved, as a step of a real clock does; CLOCK_MONOTONIC and everything that waits by it go on.
 * Deadlines that were made with the moved clock are taken back before the kernel sees them. Unlike on a real machine a
 * step therefore does not stretch a wait that is under way; libfaketime 0.9.10 was tried and breaks clock_nanosleep.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL
#define MONOTONIC_S_MAX 1000000000LL /* no machine is up for 30 years: later deadlines are of the wall clock */

static volatile int64_t *offset_ns;

__attribute__((constructor)) static void open_clock(void) {
    const char *name = getenv("CHAOS_CLOCK");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof *offset_ns, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) offset_ns = at;
}

static struct timespec moved(struct timespec t, int64_t by_ns) {
    int64_t ns = t.tv_nsec + by_ns % SECOND_NS;
    t.tv_sec += by_ns / SECOND_NS + (ns >= SECOND_NS) - (ns < 0);
    t.tv_nsec = ns + (ns < 0 ? SECOND_NS : 0) - (ns >= SECOND_NS ? SECOND_NS : 0);
    return t;
}

static struct timespec true_time(const struct timespec *t) {
    return offset_ns && t->tv_sec > MONOTONIC_S_MAX ? moved(*t, -*offset_ns) : *t;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t id, struct timespec *t) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int code = real(id, t);
    if (code == 0 && offset_ns && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) *t = moved(*t, *offset_ns);
    return code;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *t, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, t) == 0 ? base : 0;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict t) {
    struct timespec until = true_time(t);
    return REAL(pthread_cond_timedwait)(c, m, &until);
}

int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict t) {
    struct timespec until = true_time(t);
    return REAL(cnd_timedwait)(c, m, &until);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict m, const struct timespec *restrict t) {
    struct timespec until = true_time(t);
    return REAL(pthread_mutex_timedlock)(m, &until);
}

int sem_timedwait(sem_t *restrict s, const struct timespec *restrict t) {
    struct timespec until = true_time(t);
    return REAL(sem_timedwait)(s, &until);
}
