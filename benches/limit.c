/* The limit: the least that an init or a supervisor can do. vfork, exec, wait; forward signals; restart what died.
 * No configuration, no error handling, no grace period: not a program to use, a figure to measure others by.
 *
 *   limit 0 CMD...             init: one command, signals forwarded, ends with it
 *   limit N CMD... [++ CMD2...]  supervise N copies of CMD and one CMD2; SIGTERM stops all
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static sigset_t all, before;

static pid_t start(char **command) {
    pid_t pid = vfork();
    if (pid == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        setsid();
        execve(command[0], command, environ);
        _exit(127);
    }
    return pid;
}

int main(int count, char **words) {
    char **other = NULL;
    int copies = count > 2 ? atoi(words[1]) : -1, stopping = 0, alive = 0;
    if (copies < 0) return 2;
    for (int i = 2; i < count; i++)
        if (!strcmp(words[i], "++")) {
            words[i] = NULL;
            other = words + i + 1;
            break;
        }
    int slots = (copies ? copies : 1) + (other != NULL);
    pid_t *pids = calloc((size_t)slots, sizeof *pids);
    if (!pids) return 1;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    for (; alive < slots; alive++) pids[alive] = start(other && alive == slots - 1 ? other : words + 2);
    while (alive) {
        int status, slot, signal = sigwaitinfo(&all, NULL);
        pid_t pid;
        if (signal > 0 && signal != SIGCHLD) {
            stopping |= signal == SIGTERM;
            for (slot = 0; slot < slots; slot++)
                if (pids[slot] > 0) kill(pids[slot], signal);
        }
        while (signal == SIGCHLD && (pid = waitpid(-1, &status, WNOHANG)) > 0) {
            for (slot = slots - 1; slot >= 0 && pids[slot] != pid; slot--) {
            }
            if (slot < 0) continue;
            if (copies && !stopping) {
                pids[slot] = start(other && slot == slots - 1 ? other : words + 2);
            } else {
                pids[slot] = 0;
                alive--;
            }
        }
    }
    return 0;
}
