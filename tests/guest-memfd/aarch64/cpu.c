/*
 * Guest payload on arm64: exceptions, processors, caches
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"
#include "layout.h"
#include "cpu.h"

#define PSCI_CPU_OFF        0x84000002
#define PSCI_CPU_ON         0xc4000003
#define PSCI_SYSTEM_RESET   0x84000009
#define PSCI_ALREADY_ON     (-4)

/* Identity-mapped by start.S: all addresses below 256 GiB */
uint64_t page_table[512] __attribute__((aligned(4096)));
uint64_t low_table[512] __attribute__((aligned(4096)));
char stacks[CPUS][STACK_SIZE] __attribute__((aligned(4096)));

static job_fn *current_job;
static unsigned cpus_wanted, cpus_done;

_Static_assert(CPUS == MAX_CPUS, "layout.h and payload.h disagree");
_Static_assert(STACK_SIZE == 1 << 12, "start.S divides by it");

/* The compiler calls it to copy structures. */
void *memcpy(void *to, const void *from, size_t n);

void *memcpy(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((char *)to)[i] = ((const char *)from)[i];
    }
    return to;
}

static int64_t psci(uint64_t function, uint64_t arg1, uint64_t arg2,
                    uint64_t arg3)
{
    register uint64_t x0 asm("x0") = function;
    register uint64_t x1 asm("x1") = arg1;
    register uint64_t x2 asm("x2") = arg2;
    register uint64_t x3 asm("x3") = arg3;

    asm volatile("hvc #0"
                 : "+r" (x0), "+r" (x1), "+r" (x2), "+r" (x3)
                 : : "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12",
                     "x13", "x14", "x15", "x16", "x17", "memory");
    return x0;
}

/* Nothing here is expected to fault. */
void exception(uint64_t esr, uint64_t elr, uint64_t far)
{
    say("error exception esr=%lx elr=%lx far=%lx\n", esr, elr, far);
    arch_halt();
}

void cpu_main(unsigned cpu)
{
    if (cpu == 0) {
        main_loop();
    }
    current_job(cpu, cpus_wanted);
    __atomic_fetch_add(&cpus_done, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        psci(PSCI_CPU_OFF, 0, 0, 0);
    }
}

/*
 * As on x86, the other CPUs run only while there is a job.  The first 16 are
 * in one cluster with a GICv3, and a GICv2 has 8 at most: MPIDR is a number.
 */
void arch_run(unsigned cpus, job_fn *job)
{
    if (cpus > 1) {
        current_job = job;
        cpus_wanted = cpus;
        __atomic_store_n(&cpus_done, 0, __ATOMIC_SEQ_CST);
        for (unsigned cpu = 1; cpu < cpus; cpu++) {
            int64_t ret;

            /* One that has just finished may still be on its way off. */
            do {
                ret = psci(PSCI_CPU_ON, cpu, (uintptr_t)cpu_entry,
                           (uintptr_t)stacks[cpu] + STACK_SIZE);
            } while (ret == PSCI_ALREADY_ON);
            if (ret) {
                say("error cannot start CPU %lu\n", (unsigned long)cpu);
                arch_halt();
            }
        }
    }
    job(0, cpus);
    while (cpus > 1 &&
           __atomic_load_n(&cpus_done, __ATOMIC_SEQ_CST) < cpus - 1) {
        asm volatile("yield");
    }
}

bool arch_map(uint64_t start, uint64_t end)
{
    return end <= 256ULL << 30;
}

uint64_t arch_clock(void)
{
    uint64_t ticks;

    /* Not before what the program did before */
    asm volatile("isb; mrs %0, cntvct_el0" : "=r" (ticks) : : "memory");
    return ticks;
}

struct range arch_own(void)
{
    return (struct range) { (uintptr_t)own_start, (uintptr_t)own_end };
}

uint32_t arch_exec(uint64_t addr, uint32_t value)
{
    uint32_t *code = (void *)addr;

    code[0] = 0x52800000 | (value & 0xffff) << 5;   /* movz w0, #low */
    code[1] = 0x72a00000 | value >> 16 << 5;        /* movk w0, #high, lsl 16 */
    code[2] = 0xd65f03c0;                           /* ret */
    /* They may lie in two cache lines. */
    asm volatile("dc cvau, %0; dc cvau, %1; dsb ish;"
                 "ic ivau, %0; ic ivau, %1; dsb ish; isb"
                 : : "r" (code), "r" (code + 2) : "memory");
    return ((uint32_t (*)(void))addr)();
}

void arch_reset(void)
{
    psci(PSCI_SYSTEM_RESET, 0, 0, 0);
    arch_halt();
}

void arch_halt(void)
{
    for (;;) {
        asm volatile("wfi");
    }
}
