/* What `make bench` starts: the measured children, which take their own time stamps, and the launcher that makes a
 * program PID 1 of a fresh PID namespace. Stamps are CLOCK_MONOTONIC nanoseconds in the file that BENCH_SHM names.
 * Who has a BENCH_GROUP in its environment goes into that cgroup first.
 *
 *   child pid1 CMD...   CMD as PID 1; says in the end when it was over and what CPU it took
 *   child once          a birth, and out
 *   child service       a birth, then idle
 *   child still         idle, counted in DONE, for company
 *   child die           once GO is set: a birth, BENCH_LIFE microseconds, a death; idle after BENCH_COUNT of them
 *   child signal        stamps each SIGUSR1 that arrives
 *   child stream|batch  leaves BENCH_COUNT orphans to PID 1, one by one or all at once
 *   child write         while FLOW is 1: lines of 100 bytes to stdout, BENCH_BLOCK bytes at a time; when it is 2: the
 *                       last line, which has a mark in it
 *   child drain         reads what comes on stdin, and says when it has found a mark
 *   child ask           BENCH_COUNT requests for /metrics to BENCH_TARGET, one in each millisecond; stamps how long after
 *                       it was due each was answered
 *   child load          BENCH_CLIENTS that ask / of the port BENCH_TARGET until FLOW is 2, each once in BENCH_INTERVAL
 *                       microseconds, or as fast as it is answered if that is 0; BENCH_KEPT of them keep connections;
 *                       stamps how long after it was due each was answered
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The words of the shared file; run.py has the same list. */
enum { EXEC, COUNT, PID, END, TREE_CPU, GO, DONE, FLOW, WRITERS, WRITTEN, MARKS, LAST, DRAINED, ERRORS, STAMPS,
       WORDS = 1 << 16 };
enum { LINE = 100, MARK = '~', MILLISECOND = 1000000 };
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

static void join_group(void) {
    const char *group = getenv("BENCH_GROUP");
    if (!group || !*group) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/cgroup.procs", group);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd == -1 || write(fd, "0", 1) != 1) die(path);
    close(fd);
}

static int pid1(char **command) {
    /* When this process ends, all its descendants end too. */
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

static void put(const char *text, size_t length) {
    shared[WRITTEN] += length;
    while (length) {
        ssize_t written = write(STDOUT_FILENO, text, length);
        if (written == -1 && errno != EINTR) die("write");
        if (written > 0) text += written, length -= (size_t)written;
    }
}

static void write_lines(size_t block) {
    static const char line[] = "GET /articles/2026/11/21/a-quick-brown-fox?page=1 HTTP/1.1 200 5316 "
                               "\"https://example.org/articles/\"\n";
    _Static_assert(sizeof line == LINE + 1, "a line has 100 bytes");
    /* From each place in a line there is a block to write. */
    char *lines = malloc(block + LINE), last[LINE];
    if (!lines) die("malloc");
    for (size_t i = 0; i < block + LINE; i++) lines[i] = line[i % LINE];
    signal(SIGUSR1, SIG_IGN);
    shared[WRITERS]++;
    size_t place = 0;
    while (shared[FLOW] != 2) {
        if (!shared[FLOW]) {
            nap(2000);
            continue;
        }
        put(lines + place, block);
        place = (place + block) % LINE;
    }
    if (place) put(lines + place, LINE - place);
    memcpy(last, line, LINE);
    last[LINE - 2] = MARK;
    put(last, LINE);
    idle();
}

static int drain(void) {
    static char text[1 << 18];
    ssize_t length;
    while ((length = read(STDIN_FILENO, text, sizeof text)) != 0) {
        if (length == -1 && errno != EINTR) die("read");
        char *rest = text, *end = text + (length > 0 ? length : 0);
        shared[DRAINED] += (uint64_t)(end - text);
        while ((rest = memchr(rest, MARK, (size_t)(end - rest)))) {
            rest++;
            shared[LAST] = now();
            shared[MARKS]++;
        }
    }
    return 0;
}

/* Whether the answer to one request is correct. */
static int request(const char *target) {
    static const char get[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    strncpy(path.sun_path, target, sizeof path.sun_path - 1);
    port.sin_port = htons((uint16_t)atoi(target));
    int local = *target == '/', fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1) die("socket");
    static char answer[1 << 16];
    ssize_t length = -1, got = 0;
    if (!connect(fd, local ? (struct sockaddr *)&path : (struct sockaddr *)&port, local ? sizeof path : sizeof port) &&
        write(fd, get, sizeof get - 1) == sizeof get - 1)
        while ((length = read(fd, answer + got, sizeof answer - (size_t)got)) > 0) got += length;
    close(fd);
    shared[DRAINED] += (uint64_t)got;
    return length == 0 && got > 12 && !memcmp(answer, "HTTP/1.1 200", 12);
}

static int ask(uint64_t count, const char *target) {
    prctl(PR_SET_TIMERSLACK, 1);
    uint64_t start = now();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t due = start + i * MILLISECOND;
        struct timespec t = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
        }
        if (!request(target)) shared[ERRORS]++;
        stamp(STAMPS + i, now() - due);
        shared[COUNT]++;
    }
    return 0;
}

static int dial(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    struct timeval patience = {10, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd == -1) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!connect(fd, (struct sockaddr *)&address, sizeof address)) return fd;
    close(fd);
    return -1;
}

/* The result of one request: 1 for a correct answer, 0 for a connection closed before any answer, -1 otherwise. */
static int exchange(int fd, int keep, int *kept) {
    const char *get = keep ? "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
                           : "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    static const char field[] = "\r\ncontent-length:";
    char answer[4096];
    size_t got = 0, whole = sizeof answer;
    *kept = 0;
    if (send(fd, get, strlen(get), MSG_NOSIGNAL) != (ssize_t)strlen(get)) return 0;
    while (got < whole) {
        ssize_t length = recv(fd, answer + got, sizeof answer - 1 - got, 0);
        if (length == -1 && errno == EINTR) continue;
        if (length <= 0) return got || (length && errno == EAGAIN) ? -1 : 0;
        answer[got += (size_t)length] = 0;
        char *end = strstr(answer, "\r\n\r\n"), *size = strcasestr(answer, field);
        if (end && size && size < end)
            whole = (size_t)(end + 4 - answer) + strtoul(size + sizeof field - 1, NULL, 10);
    }
    *kept = keep && !strcasestr(answer, "\r\nconnection: close");
    return memcmp(answer, "HTTP/1.1 200", 12) ? -1 : 1;
}

/* Whether a request has a good answer. One that is not even looked at on a kept connection is asked again: whoever
 * keeps connections has to, as they may be closed at any time. */
static int asked(int *fd, uint16_t port, int keep) {
    for (;;) {
        char next;
        int kept, fresh = *fd == -1;
        if (!fresh && (recv(*fd, &next, 1, MSG_PEEK | MSG_DONTWAIT) != -1 || errno != EAGAIN)) {
            close(*fd);
            fresh = 1;
        }
        if (fresh && (*fd = dial(port)) == -1) return 0;
        int result = exchange(*fd, keep, &kept);
        if (!kept) {
            close(*fd);
            *fd = -1;
        }
        if (result || fresh) return result == 1;
        shared[MARKS]++;
    }
}

static void be_client(uint16_t port, int keep, uint64_t interval, uint64_t due) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1);
    int fd = -1;
    while (shared[FLOW] != 2) {
        struct timespec t = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
        }
        if (asked(&fd, port, keep)) {
            uint64_t took = now() - due;
            stamp(STAMPS + atomic_fetch_add(&shared[COUNT], 1), took);
        } else {
            shared[ERRORS]++;
            if (!interval) nap(1000);
        }
        due = interval ? due + interval : now();
    }
}

static int load(uint16_t port) {
    uint64_t clients = number("BENCH_CLIENTS"), kept = number("BENCH_KEPT"), interval = number("BENCH_INTERVAL") * 1000;
    uint64_t start = now();
    for (uint64_t i = 0; i < clients; i++)
        if (fork_or_die() == 0) {
            be_client(port, i < kept, interval, start + interval * i / clients);
            _exit(0);
        }
    while (wait(NULL) != -1 || errno == EINTR) {
    }
    return 0;
}

int main(int count, char **words) {
    uint64_t born = now();
    const char *what = count > 1 ? words[1] : "", *slash = strrchr(what, '/');
    if (slash) what = slash + 1; /* forever wants a file */
    map();
    join_group();
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
    if (!strcmp(what, "write")) write_lines(number("BENCH_BLOCK"));
    if (!strcmp(what, "drain")) return drain();
    if (!strcmp(what, "ask")) return ask(number("BENCH_COUNT"), getenv("BENCH_TARGET"));
    if (!strcmp(what, "load")) return load((uint16_t)number("BENCH_TARGET"));
    fputs("child: usage: see benches/child.c\n", stderr);
    return 2;
}
