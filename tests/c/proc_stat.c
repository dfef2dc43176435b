/*
 * proc_stat.c - words of /proc/PID/stat, whatever the name of the process looks like.
 */
#define _GNU_SOURCE
#include "part.h"

#include "base/proc_stat.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void words_of_a_text(void) {
    proc_stat in = {.text = "7 (a ) T (b) S 1 2 3"};
    uint64_t number = 5;
    CHECK(*proc_stat_find(&in, PROC_STAT_STATE) == 'S');
    CHECK(!proc_stat_find(&in, PROC_STAT_START) && !proc_stat_find(&in, PROC_STAT_PROCESSOR));
    CHECK(!proc_stat_number(&in, PROC_STAT_STATE, &number) && number == 0);
    in.text[0] = '\0';
    CHECK(!proc_stat_find(&in, PROC_STAT_STATE));
}

static char state_of(pid_t pid) {
    proc_stat in;
    proc_stat_of_process(&in, (uint32_t)pid);
    const char *state = proc_stat_find(&in, PROC_STAT_STATE);
    return state ? *state : '-';
}

static void of_a_child(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_NAME, ") S 1 (x");
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    CHECK(state_of(child) == 'T');
    proc_stat in;
    uint64_t own, childs;
    proc_stat_of_self(&in);
    CHECK(proc_stat_number(&in, PROC_STAT_START, &own));
    proc_stat_of_process(&in, (uint32_t)child);
    CHECK(proc_stat_number(&in, PROC_STAT_START, &childs) && childs >= own && own > 0);
    CHECK(kill(child, SIGCONT) == 0 && waitpid(child, &status, 0) == child);
    CHECK(state_of(child) == '-');
}

static void *of_a_thread(void *unused) {
    (void)unused;
    cpu_set_t set;
    int processor = sched_getcpu();
    CPU_ZERO(&set);
    CPU_SET((size_t)processor, &set);
    CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
    proc_stat in;
    uint64_t told;
    proc_stat_of_thread(&in, (uint32_t)gettid());
    CHECK(proc_stat_number(&in, PROC_STAT_PROCESSOR, &told) && told == (uint64_t)processor);
    return NULL;
}

int main(void) {
    words_of_a_text();
    of_a_child();
    in_threads(1, of_a_thread);
    return 0;
}
