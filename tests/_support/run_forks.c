/* What libc and a program do around a fork under `uswap run`: one of a few ways, by its name; it ends well, and prints "right". */
#define _GNU_SOURCE
#include <nss.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define BYTES ((size_t)48 << 20)

static unsigned char *block;
static ucontext_t out, in;

static int right(void) {
    for (size_t i = 0; i < BYTES; i += 4096)
        if (block[i] != (unsigned char)(i >> 12))
            return 0;
    return 1;
}

static int child_is_right(pid_t child) {
    int status;
    if (child == 0)
        _exit(right() ? 0 : 1);
    return waitpid(child, &status, 0) == child && status == 0;
}

static void fork_on_this_stack(void) {
    char local[20000];
    memset(local, 3, sizeof local);
    for (int i = 0; i < 3; i++) {
        right(); /* which takes the stack's pages out */
        if (!child_is_right(fork()) || local[777] != 3)
            exit(1);
    }
}

static void on_managed_stack(void) {
    char *stack = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    getcontext(&in);
    in.uc_stack.ss_sp = stack;
    in.uc_stack.ss_size = 1 << 20;
    in.uc_link = &out;
    makecontext(&in, fork_on_this_stack, 0);
    swapcontext(&out, &in);
}

static void with_streams(void) {
    char *memory, line[32] = "";
    size_t bytes;
    FILE *null = fopen("/dev/null", "w"), *to_memory = open_memstream(&memory, &bytes);
    for (int i = 0; i < 20000; i++)
        fprintf(to_memory, "%09d\n", i);
    right();
    if (!child_is_right(fork()))
        exit(1);
    fclose(to_memory);
    fclose(null);
    FILE *command = popen("echo popen", "r");
    if (bytes != 200000 || !fgets(line, sizeof line, command) || strcmp(line, "popen\n") || pclose(command))
        exit(1);
    free(memory);
}

static void after_names_were_looked_up(void) {
    if (!getpwuid(0))
        exit(1);
    right();
    if (!child_is_right(fork()) || !child_is_right(_Fork()))
        exit(1);
}

static void *last(void *unused) {
    (void)unused;
    puts(right() ? "right" : "wrong");
    fflush(stdout);
    return NULL;
}

static void *fork_in_thread(void *unused) {
    pid_t child = fork();
    int status;
    if (child != 0 && (waitpid(child, &status, 0) != child || status != 0))
        exit(1);
    return unused; /* in the child it was the only one */
}

static void thread_is_last(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, fork_in_thread, NULL);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, last, NULL);
    pthread_detach(thread);
    pthread_exit(NULL);
}

int main(int count, char **words) {
    block = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i += 4096)
        block[i] = (unsigned char)(i >> 12);
    const char *way = count > 1 ? words[1] : "";
    if (!strcmp(way, "stack"))
        on_managed_stack();
    else if (!strcmp(way, "streams"))
        with_streams();
    else if (!strcmp(way, "names"))
        after_names_were_looked_up();
    else if (!strcmp(way, "last"))
        thread_is_last();
    else
        return 2;
    puts(right() ? "right" : "wrong");
    return 0;
}
