/* Stands in front of libc and lets the wall clock go ahead by SHIM_AHEAD_S seconds. Monotonic time is
   as it is. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *at) {
    long failed = syscall(SYS_clock_gettime, clock, at);
    const char *ahead = getenv("SHIM_AHEAD_S");
    if (!failed && clock == CLOCK_REALTIME && ahead) at->tv_sec += atol(ahead);
    return (int)failed;
}
