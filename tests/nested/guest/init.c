/*
 * The only program of a Linux guest: tests its memory on command
 *
 * Lines in, lines out, on the console, with the commands that the payload of
 * tests/guest-memfd has, too:
 *
 *   fill, check SEED    a pattern in most of the memory that was free
 *   count               add 1 to the first word of each page, pass after pass,
 *                       a thread a CPU, until the next line; then check it
 *   reset, halt         as root does it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/sysinfo.h>

#include "pattern.h"

#define MAX_CPUS 64
#define WORDS    (4096 / sizeof(uint64_t))

static uint64_t *memory;
static size_t pages;
static int cpus;
static bool stop;

struct counter {
    pthread_t thread;
    size_t first, end;          /* its pages */
    uint64_t passes;
};

/* All passes are whole ones, so that each page must hold their number */
static void *count(void *opaque)
{
    struct counter *c = opaque;

    do {
        for (size_t i = c->first; i < c->end; i++) {
            /* volatile: each write has to happen */
            (*(volatile uint64_t *)&memory[i * WORDS])++; /* see above */
        }
        c->passes++;
    } while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE));
    return NULL;
}

static void do_count(char *line, size_t size)
{
    struct counter c[MAX_CPUS] = {};
    uint64_t passes = UINT64_MAX;

    for (size_t i = 0; i < pages; i++) {
        memory[i * WORDS] = 0;
    }
    stop = false;
    for (int i = 0; i < cpus; i++) {
        c[i].first = pages * i / cpus;
        c[i].end = pages * (i + 1) / cpus;
        if (pthread_create(&c[i].thread, NULL, count, &c[i])) {
            printf("error cannot start thread %d\n", i);
            exit(1);
        }
    }
    puts("ok counting");
    if (!fgets(line, size, stdin)) {
        exit(1);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < cpus; i++) {
        pthread_join(c[i].thread, NULL);
        passes = c[i].passes < passes ? c[i].passes : passes;
    }
    for (int i = 0; i < cpus; i++) {
        for (size_t p = c[i].first; p < c[i].end; p++) {
            if (memory[p * WORDS] != c[i].passes) {
                printf("error page=%zu expected=%" PRIu64 " found=%" PRIu64
                       "\n", p, c[i].passes, memory[p * WORDS]);
                return;
            }
        }
    }
    printf("ok passes=%" PRIu64 "\n", passes);
}

static void fill(uint64_t seed)
{
    for (size_t i = 0; i < pages * WORDS; i++) {
        memory[i] = guest_memfd_pattern(i, seed);
    }
    printf("ok %zu\n", pages * 4096);
}

static void check(uint64_t seed)
{
    for (size_t i = 0; i < pages * WORDS; i++) {
        if (memory[i] != guest_memfd_pattern(i, seed)) {
            printf("error word=%zu expected=0x%" PRIx64 " found=0x%" PRIx64
                   "\n", i, guest_memfd_pattern(i, seed), memory[i]);
            return;
        }
    }
    printf("ok %zu\n", pages * 4096);
}

static void allocate(void)
{
    struct sysinfo info;

    sysinfo(&info);
    cpus = get_nprocs() < MAX_CPUS ? get_nprocs() : MAX_CPUS;
    pages = (uint64_t)info.freeram * info.mem_unit / 4096 * 9 / 10;
    memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("error mmap");
        exit(1);
    }
    printf("guest-memfd linux ready ram=%" PRIu64 " cpus=%d tested=%zu\n",
           (uint64_t)info.totalram * info.mem_unit, cpus, pages * 4096);
}

int main(void)
{
    static char line[128];
    struct termios tty;
    uint64_t seed;

    tcgetattr(STDIN_FILENO, &tty);
    tty.c_lflag &= ~ECHO;
    tcsetattr(STDIN_FILENO, TCSANOW, &tty);
    setvbuf(stdout, NULL, _IOLBF, 0);

    allocate();
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "fill %" SCNu64, &seed) == 1) {
            fill(seed);
        } else if (sscanf(line, "check %" SCNu64, &seed) == 1) {
            check(seed);
        } else if (!strncmp(line, "count", 5)) {
            do_count(line, sizeof(line));
        } else if (!strcmp(line, "reset\n")) {
            puts("ok");
            reboot(RB_AUTOBOOT);
        } else if (!strcmp(line, "halt\n")) {
            puts("ok");
            reboot(RB_POWER_OFF);
        } else {
            puts("error commands: fill SEED, check SEED, count, reset, halt");
        }
    }
    return 1;
}
