/* Stands in front of libc and makes calls on the database's files fail.
   SHIM_CALL sync|write, SHIM_NTH the first call that fails (0: none), SHIM_TIMES how many in a row,
   SHIM_ERRNO with what; with SHIM_LAZY syncs that do not fail are said to be done and cost nothing.
   Says "fault N" on standard output, and "calls N" at the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long calls;

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static void say(const char *word, long value) {
    char line[64];
    int length = snprintf(line, sizeof line, "%s %ld\n", word, value);
    (void)!syscall(SYS_write, 1, line, length);
}

static int fails(const char *call, int fd) {
    const char *wanted = getenv("SHIM_CALL");
    if (!wanted || strcmp(wanted, call)) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, "/cortex.db")) return 0;
    long call_number = atomic_fetch_add(&calls, 1) + 1, nth = number("SHIM_NTH");
    if (nth == 0 || call_number < nth || call_number >= nth + number("SHIM_TIMES")) return 0;
    say("fault", call_number);
    errno = (int)number("SHIM_ERRNO");
    return 1;
}

static int sync_by(long which, int fd) {
    if (fails("sync", fd)) return -1;
    return getenv("SHIM_LAZY") ? 0 : (int)syscall(which, fd);
}

int fsync(int fd) { return sync_by(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }

ssize_t write(int fd, const void *from, size_t count) {
    return fails("write", fd) ? -1 : syscall(SYS_write, fd, from, count);
}
ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
    return fails("write", fd) ? -1 : syscall(SYS_pwrite64, fd, from, count, at);
}
ssize_t pwrite64(int fd, const void *from, size_t count, off_t at) {
    return fails("write", fd) ? -1 : syscall(SYS_pwrite64, fd, from, count, at);
}

__attribute__((destructor)) static void end(void) { say("calls", atomic_load(&calls)); }
