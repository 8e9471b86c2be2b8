/* Holds every sync of the process back while the file named by CORTEX_BENCH_STALL exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void hold(void) {
    const char *file = getenv("CORTEX_BENCH_STALL");
    while (file && access(file, F_OK) == 0) usleep(2000);
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    hold();
    return real(fd);
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    hold();
    return real(fd);
}
