/* A clock of the day that jumps, to be loaded before the C library: FAULT_CLOCK="every,seconds" moves it on by
   so many seconds, back by as many, and to what it is, after every so many looks. The monotonic clock, by
   which nothing here may be misled, stays. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long jumped(void) {
    static long looks = 0;
    const char *text = getenv("FAULT_CLOCK");
    long every = 0, seconds = 0;
    if (text == NULL || sscanf(text, "%ld,%ld", &every, &seconds) != 2 || every < 1) return 0;
    switch ((__sync_fetch_and_add(&looks, 1) / every) % 3) {
        case 0: return seconds;
        case 1: return -seconds;
        default: return 0;
    }
}

int clock_gettime(clockid_t which, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *) = NULL;
    if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(which, at);
    if (status == 0 && which == CLOCK_REALTIME) at->tv_sec += jumped();
    return status;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL) *at = now.tv_sec;
    return now.tv_sec;
}
