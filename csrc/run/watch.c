/*
 * watch.c - who has started the program sees one process: what it sends goes to the program, and how the program stops, goes on and ends it is told.
 */
#define _GNU_SOURCE
#include "run/watch.h"

#include "run/board.h"
#include "run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Pipes of the program's must end with it, not with this process. Return: standard error. */
static int close_all_but(int board_fd) {
    int to = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    run_descriptors_close_all_but(to, board_fd);
    return to;
}

_Noreturn static void end_by(int number) {
    static const struct rlimit none;
    sigset_t mask;
    setrlimit(RLIMIT_CORE, &none); /* the program has left its own */
    signal(number, SIG_DFL);
    sigemptyset(&mask);
    sigaddset(&mask, number);
    sigprocmask(SIG_UNBLOCK, &mask, NULL);
    kill(getpid(), number);
    _exit(128 + number);
}

_Noreturn static void end_as(int status, pid_t child, int to) {
    char how[64] = "";
    board_slot *slot = run_board_of(child);
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, ", ended by SIG%s", sigabbrev_np(WTERMSIG(status)));
    if (slot)
        run_board_say(slot, to, how);
    run_board_tell(to, 0);
    if (run_set.pool_folder[0])
        run_board_say_together(to);
    if (WIFSIGNALED(status))
        end_by(WTERMSIG(status));
    _exit(WEXITSTATUS(status));
}

static void look(pid_t child, int to) {
    int status;
    pid_t found = waitpid(child, &status, WUNTRACED | WNOHANG);
    if (found < 0 && errno == ECHILD)
        _exit(1); /* somebody else has waited for it: there is nothing to tell */
    if (found != child)
        return;
    if (!WIFSTOPPED(status))
        end_as(status, child, to);
    raise(SIGSTOP);
    kill(child, SIGCONT);
}

/* What a terminal sends goes to all of its foreground group: the program has it already. */
_Noreturn static void watch(pid_t child, int to, const sigset_t *all) {
    prctl(PR_SET_NAME, "uswap-run");
    for (;;) {
        siginfo_t told;
        look(child, to);
        int number = sigwaitinfo(all, &told);
        if (number > 0 && number != SIGCHLD && told.si_code != SI_KERNEL)
            kill(child, number);
    }
}

static void go_on(pid_t watcher, const sigset_t *mask, const struct sigaction *on_death) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever kills the process that he has started means the program */
    if (getppid() != watcher)
        raise(SIGKILL);
    sigaction(SIGCHLD, on_death, NULL);
    sigprocmask(SIG_SETMASK, mask, NULL);
}

void run_watch(int board_fd) {
    static const struct sigaction by_default = {.sa_handler = SIG_DFL};
    struct sigaction on_death;
    sigset_t all, mask;
    pid_t watcher = getpid();
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &mask);
    sigaction(SIGCHLD, &by_default, &on_death); /* where it is ignored nobody learns how a child has ended */
    pid_t child = fork();
    if (child > 0) {
        int to = close_all_but(board_fd);
        if (chdir("/") == 0) /* the program's may be unmounted */
            watch(child, to, &all);
        watch(child, to, &all);
    }
    if (child == 0)
        go_on(watcher, &mask, &on_death);
    else {
        sigaction(SIGCHLD, &on_death, NULL);
        sigprocmask(SIG_SETMASK, &mask, NULL);
    }
}
