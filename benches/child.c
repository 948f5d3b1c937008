/* What `make bench` starts: the measured children, which take their own time stamps, and the launcher that makes a
 * program PID 1 of a fresh PID namespace. Stamps are CLOCK_MONOTONIC nanoseconds in the file that BENCH_SHM names.
 *
 *   child pid1 CMD...   CMD as PID 1; says in the end when it was over and what CPU it took
 *   child once          a birth, and out
 *   child service       a birth, then idle
 *   child still         idle, counted in DONE, for company
 *   child die           once GO is set: a birth, BENCH_LIFE microseconds, a death; idle after BENCH_COUNT of them
 *   child signal        stamps each SIGUSR1 that arrives
 *   child stream|batch  leaves BENCH_COUNT orphans to PID 1, one by one or all at once
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The words of the shared file; bench.py has the same list. */
enum { EXEC, COUNT, PID, END, TREE_CPU, GO, DONE, STAMPS, WORDS = 1 << 16 };
static _Atomic uint64_t *shared;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    _exit(111);
}

static void nap(long microseconds) {
    struct timespec t = {microseconds / 1000000, microseconds % 1000000 * 1000};
    while (nanosleep(&t, &t) == -1 && errno == EINTR) {
    }
}

static uint64_t number(const char *name) {
    const char *value = getenv(name);
    return value ? strtoull(value, NULL, 10) : 0;
}

static void stamp(uint64_t word, uint64_t value) {
    if (word < WORDS) shared[word] = value;
}

static void map(void) {
    const char *path = getenv("BENCH_SHM");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd == -1) die("BENCH_SHM");
    shared = mmap(NULL, WORDS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) die("mmap");
    close(fd);
}

static int pid1(char **command) {
    /* Whoever ends, all that was started below ends too. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (unshare(CLONE_NEWPID | CLONE_NEWNS)) die("unshare");
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) die("make mounts private");
    pid_t pid = fork();
    if (pid == -1) die("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (mount("proc", "/proc", "proc", 0, NULL)) die("mount /proc");
        shared[EXEC] = now();
        execvp(command[0], command);
        die(command[0]);
    }
    shared[PID] = (uint64_t)pid;
    siginfo_t info;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == -1 && errno == EINTR) {
    }
    shared[END] = now();
    struct rusage usage;
    int status;
    wait4(pid, &status, 0, &usage);
    shared[TREE_CPU] = ((uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
                        (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec)) * 1000u;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void idle(void) {
    for (;;) pause();
}

static int mortal(uint64_t born) {
    uint64_t life = number("BENCH_LIFE"), index = atomic_fetch_add(&shared[COUNT], 1);
    stamp(STAMPS + 2 * index, born);
    if (index >= number("BENCH_COUNT")) idle();
    while (!shared[GO]) nap(1000);
    nap((long)life);
    stamp(STAMPS + 2 * index + 1, now());
    _exit(1);
}

static void heard(int signal) {
    (void)signal;
    shared[STAMPS] = now();
    atomic_fetch_add(&shared[COUNT], 1);
}

static pid_t fork_or_die(void) {
    pid_t pid = fork();
    if (pid == -1) die("fork");
    return pid;
}

static void leave_orphans(uint64_t count) {
    pid_t parent = fork_or_die();
    if (parent == 0) {
        while (count--)
            if (fork_or_die() == 0) _exit(0);
        _exit(0);
    }
    while (waitpid(parent, NULL, 0) == -1 && errno == EINTR) {
    }
}

static void orphans(uint64_t times, uint64_t each) {
    shared[COUNT] = 1;
    while (!shared[GO]) nap(1000);
    while (times--) leave_orphans(each);
    shared[DONE] = 1;
    idle();
}

int main(int count, char **words) {
    uint64_t born = now();
    const char *what = count > 1 ? words[1] : "", *slash = strrchr(what, '/');
    if (slash) what = slash + 1; /* forever wants a file */
    map();
    if (!strcmp(what, "pid1") && count > 2) return pid1(words + 2);
    if (!strcmp(what, "once")) {
        shared[STAMPS] = born;
        return 0;
    }
    if (!strcmp(what, "service")) {
        stamp(STAMPS + atomic_fetch_add(&shared[COUNT], 1), born);
        idle();
    }
    if (!strcmp(what, "still")) {
        atomic_fetch_add(&shared[DONE], 1);
        idle();
    }
    if (!strcmp(what, "die")) return mortal(born);
    if (!strcmp(what, "signal")) {
        struct sigaction action = {.sa_handler = heard};
        sigaction(SIGUSR1, &action, NULL);
        shared[COUNT] = 1;
        idle();
    }
    if (!strcmp(what, "stream")) orphans(number("BENCH_COUNT"), 1);
    if (!strcmp(what, "batch")) orphans(1, number("BENCH_COUNT"));
    fputs("child: usage: see benches/child.c\n", stderr);
    return 2;
}
