/*
 * The only program of a Linux guest: tests its memory on command
 *
 * Lines in, lines out, on the console, with the commands that the payload of
 * tests/guest-memfd has, too:
 *
 *   fill, check SEED    a pattern in most of the memory that was free
 *   count               add 1 to the first word of each page, pass after pass,
 *                       a thread a CPU, until the next line; then check it
 *   memory              "ok ram=BYTES free=BYTES"
 *   free                give the memory that is tested back to the system
 *   allocate            test most of the memory that is free now
 *   where               the guest-physical address of a page that is tested
 *   poisoned            read that page: it must raise a machine check, which
 *                       the kernel turns into a signal; then go on with
 *                       another page in its place
 *   reset, halt         as root does it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>

#include "pattern.h"

#define MAX_CPUS 64
#define WORDS    (4096 / sizeof(uint64_t))

static uint64_t *memory;
static size_t pages;
static int cpus;
static uint64_t page_size;
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

static void release(void)
{
    munmap(memory, pages * 4096);
    pages = 0;
}

static bool allocate(void)
{
    struct sysinfo info;

    release();
    sysinfo(&info);
    pages = (uint64_t)info.freeram * info.mem_unit / 4096 * 9 / 10;
    memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("error mmap");
        pages = 0;
    }
    return pages;
}

static void greet(void)
{
    struct sysinfo info;

    sysinfo(&info);
    printf("guest-memfd linux ready ram=%" PRIu64 " cpus=%d tested=%zu\n",
           (uint64_t)info.totalram * info.mem_unit, cpus, pages * 4096);
}

static void say_memory(void)
{
    struct sysinfo info;

    sysinfo(&info);
    printf("ok ram=%" PRIu64 " free=%" PRIu64 "\n",
           (uint64_t)info.totalram * info.mem_unit,
           (uint64_t)info.freeram * info.mem_unit);
}

/* The page that "where" and "poisoned" are about, amid the others */
static uint64_t *chosen(void)
{
    uintptr_t middle = (uintptr_t)(memory + pages / 2 * WORDS);

    return (uint64_t *)(middle - middle % page_size);
}

static void where(void)
{
    int fd = open("/proc/self/pagemap", O_RDONLY);
    uint64_t entry = 0;
    off_t at = (uintptr_t)chosen() / page_size * sizeof(entry);

    if (pread(fd, &entry, sizeof(entry), at) != sizeof(entry)) {
        perror("error /proc/self/pagemap");
    } else if (!(entry >> 63)) {
        puts("error the page is not present: fill the memory first");
    } else {
        /* Documentation/admin-guide/mm/pagemap.rst: bits 0 to 54 */
        printf("ok 0x%" PRIx64 "\n",
               (entry & ((UINT64_C(1) << 55) - 1)) * page_size);
    }
    close(fd);
}

static sigjmp_buf after_signal;
static siginfo_t signalled;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    signalled = *info;
    siglongjmp(after_signal, 1);
}

static void poisoned(void)
{
    struct sigaction action = { .sa_flags = SA_SIGINFO };
    void *page = chosen();

    action.sa_sigaction = on_sigbus;
    sigaction(SIGBUS, &action, NULL);
    if (!sigsetjmp(after_signal, 1)) {
        printf("error the page has 0x%" PRIx64 "\n",
               *(volatile uint64_t *)page); /* volatile: has to be read */
        return;
    }
    if (signalled.si_code != BUS_MCEERR_AR || signalled.si_addr != page) {
        printf("error SIGBUS code %d at %p, not at %p\n", signalled.si_code,
               signalled.si_addr, page);
        return;
    }
    if (mmap(page, page_size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != page) {
        perror("error mmap");
        return;
    }
    puts("ok");
}

/* Modules of the kernel, in the order of their names */
static void load_modules(void)
{
    glob_t found;

    if (glob("/modules/" "*.ko", 0, NULL, &found)) {
        return;
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        int fd = open(found.gl_pathv[i], O_RDONLY);

        if (syscall(SYS_finit_module, fd, "", 0)) {
            printf("error %s: %m\n", found.gl_pathv[i]);
        }
        close(fd);
    }
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

    mkdir("/proc", 0555);
    mount("proc", "/proc", "proc", 0, NULL);
    load_modules();

    cpus = get_nprocs() < MAX_CPUS ? get_nprocs() : MAX_CPUS;
    page_size = getauxval(AT_PAGESZ);
    allocate();
    greet();
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "fill %" SCNu64, &seed) == 1) {
            fill(seed);
        } else if (sscanf(line, "check %" SCNu64, &seed) == 1) {
            check(seed);
        } else if (!strncmp(line, "count", 5)) {
            do_count(line, sizeof(line));
        } else if (!strcmp(line, "memory\n")) {
            say_memory();
        } else if (!strcmp(line, "free\n")) {
            release();
            puts("ok");
        } else if (!strcmp(line, "allocate\n")) {
            if (allocate()) {
                printf("ok %zu\n", pages * 4096);
            }
        } else if (!strcmp(line, "where\n")) {
            where();
        } else if (!strcmp(line, "poisoned\n")) {
            poisoned();
        } else if (!strcmp(line, "reset\n")) {
            puts("ok");
            reboot(RB_AUTOBOOT);
        } else if (!strcmp(line, "halt\n")) {
            puts("ok");
            reboot(RB_POWER_OFF);
        } else {
            puts("error no such command");
        }
    }
    return 1;
}
