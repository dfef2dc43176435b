/* A thread closes descriptors on a stack in ordinary memory, as a coroutine does, while another one forks. Says how many children have come and gone. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define STACK_BYTES (1 << 20)
#define MEMORY_BYTES (32 << 20)
#define FORKS 30

static atomic_int ended;
static ucontext_t thread, routine;

static void close_again_and_again(void) {
    while (!ended)
        close(dup(0));
}

static void *run(void *stack) {
    getcontext(&routine);
    routine.uc_stack.ss_sp = stack;
    routine.uc_stack.ss_size = STACK_BYTES;
    routine.uc_link = &thread;
    makecontext(&routine, close_again_and_again, 0);
    swapcontext(&thread, &routine);
    return NULL;
}

int main(void) {
    pthread_t closing;
    char *memory = malloc(MEMORY_BYTES);
    int gone = 0, status;
    pthread_create(&closing, NULL, run, malloc(STACK_BYTES));
    for (int i = 0; i < FORKS; i++) {
        memset(memory, i, MEMORY_BYTES);
        pid_t child = fork();
        if (child == 0)
            _exit(memory[i * 4096] != (char)i);
        gone += waitpid(child, &status, 0) == child && status == 0;
    }
    ended = 1;
    pthread_join(closing, NULL);
    printf("%d\n", gone);
    return 0;
}
