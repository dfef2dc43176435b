/* Native signal handlers, as programs have them. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

/* ---- a handler that touches memory ---- */

static const volatile uint64_t *_Atomic watched;
static _Atomic uint64_t seen, calls;

static void look(int number) {
    (void)number;
    seen = *watched;
    calls++;
}

/* The handler of number loads the word at address. */
void look_on_signal(int number, const uint64_t *address) {
    struct sigaction action = {.sa_handler = look};
    watched = address;
    sigaction(number, &action, NULL);
}

uint64_t looks(void) {
    return calls;
}

uint64_t last_look(void) {
    return seen;
}

/* ---- a handler of SIGBUS that leaves by a jump ---- */

static _Thread_local sigjmp_buf way_out;
static struct sigaction before;

static void jump(int number, siginfo_t *info, void *machine) {
    (void)number, (void)info, (void)machine;
    siglongjmp(way_out, 1);
}

void jump_on_sigbus(void) {
    struct sigaction action = {.sa_sigaction = jump, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, &before);
}

/* Return: 1 if the load of address ended in the jump; then SIGBUS must be deliverable again. */
int load_or_jump(const volatile uint64_t *address) {
    sigset_t mask;
    if (sigsetjmp(way_out, 1) == 0) {
        (void)*address;
        return 0;
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return sigismember(&mask, SIGBUS) ? -1 : 1;
}

/* ---- a handler that gives the signal back to the one before ---- */

static void give_back(int number, siginfo_t *info, void *machine) {
    (void)info, (void)machine;
    calls++;
    sigaction(number, &before, NULL);
}

void give_back_on_sigbus(void) {
    struct sigaction action = {.sa_sigaction = give_back, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, &before);
}

/* ---- a thread with little room for handlers ---- */

typedef struct {
    volatile uint64_t *memory;
    uint64_t pages, add;
} small_job;

static void *add_to_pages(void *argument) {
    small_job *job = argument;
    stack_t little = {.ss_sp = malloc(SIGSTKSZ), .ss_size = (size_t)SIGSTKSZ};
    sigaltstack(&little, NULL);
    for (uint64_t page = 0; page < job->pages; page++)
        job->memory[page * 512] += job->add;
    little.ss_flags = SS_DISABLE;
    void *room = little.ss_sp;
    sigaltstack(&little, NULL);
    free(room);
    return NULL;
}

/* Adds to the first word of each page, from a thread with the least stack and an alternate signal stack of the usual size. */
int add_from_small_stack(uint64_t *memory, uint64_t pages, uint64_t add) {
    small_job job = {.memory = memory, .pages = pages, .add = add};
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 32768);
    int status = pthread_create(&thread, &attributes, add_to_pages, &job);
    return status ? status : pthread_join(thread, NULL);
}
