/*
 * Guest payload on x86-64: traps, page tables and processors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"
#include "layout.h"
#include "cpu.h"

#define LARGE_PAGE      (2ULL << 20)
#define USER_PAGE       0x07            /* present, writable, user */
#define USER_LARGE      0x87

#define INTERRUPT_GATE  0x8e00

#define LAPIC           0xfee00000
#define LAPIC_SPURIOUS  0x0f0
#define LAPIC_ICR_LOW   0x300
#define LAPIC_LINT0     0x350
#define SPURIOUS_ENABLE 0x100
#define LVT_EXTINT      0x700
#define ICR_INIT_OTHERS 0x000c4500
#define ICR_SIPI_OTHERS 0x000c4600

struct gate {
    uint16_t offset0;
    uint16_t selector;
    uint16_t flags;
    uint16_t offset1;
    uint32_t offset2;
    uint32_t reserved;
};

struct tss {
    uint32_t reserved0;
    uint64_t rsp0;
    uint64_t unused[11];
    uint16_t reserved1;
    uint16_t io_bitmap;
} __attribute__((packed));

uint64_t page_tables[PAGE_TABLES][512]
    __attribute__((section(".bss.page_tables"), aligned(4096)));
char stacks[CPUS][STACK_SIZE]
    __attribute__((section(".bss.stacks"), aligned(4096)));

static struct gate idt[VECTORS] __attribute__((aligned(16)));
static struct tss tss[CPUS];

static job_fn *current_job;
static uint32_t cpus_done;

_Static_assert(CPUS == MAX_CPUS, "layout.h and payload.h disagree");

/* Called in kernel mode, on the way to cpu_main() in user mode. */
void cpu_init(unsigned cpu)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = { sizeof(idt) - 1, (uintptr_t)idt };
    uint64_t base = (uintptr_t)&tss[cpu];
    uint16_t selector = SEG_TSS + 16 * cpu;

    if (cpu == 0) {
        for (unsigned i = 0; i < VECTORS; i++) {
            uint64_t to = (uintptr_t)vectors + 16 * i;

            idt[i].offset0 = to;
            idt[i].offset1 = to >> 16;
            idt[i].selector = SEG_CODE64;
            idt[i].flags = INTERRUPT_GATE;
        }
    }
    asm volatile("lidt %0" : : "m" (idtr));

    /* Written anew each time, as ltr marks it busy. */
    tss[cpu].rsp0 = (uintptr_t)stacks[cpu] + STACK_SIZE;
    tss[cpu].io_bitmap = sizeof(tss[cpu]);
    gdt[selector / 8] = (sizeof(tss[cpu]) - 1) | base << 16 | 0x89ULL << 40;
    gdt[selector / 8 + 1] = 0;
    asm volatile("ltr %0" : : "r" (selector));
}

/* In kernel mode, for good: nothing here is expected to fault. */
void exception(const struct fault_frame *frame, uint64_t cr2)
{
    say("error exception vector=%lu code=%lx rip=%lx cr2=%lx\n",
        frame->vector, frame->error_code, frame->rip, cr2);
}

void cpu_main(unsigned cpu)
{
    if (cpu == 0) {
        main_loop();
    }
    current_job(cpu, cpus_wanted);
    __atomic_fetch_add(&cpus_done, 1, __ATOMIC_SEQ_CST);
    arch_halt();
}

static void lapic_write(unsigned reg, uint32_t value)
{
    uint32_t *address = (void *)(uintptr_t)(LAPIC + reg);

    __atomic_store_n(address, value, __ATOMIC_RELEASE);
}

void cpu_enable_interrupts(void)
{
    arch_map(LAPIC, LAPIC + PAGE_SIZE);
    lapic_write(LAPIC_SPURIOUS, SPURIOUS_ENABLE | (VECTORS - 1));
    lapic_write(LAPIC_LINT0, LVT_EXTINT);
}

static void pause_ticks(uint64_t ticks)
{
    uint64_t start = __builtin_ia32_rdtsc();

    while (__builtin_ia32_rdtsc() - start < ticks) {
        __builtin_ia32_pause();
    }
}

/*
 * The other CPUs exist only while there is a job: each is started from
 * scratch, and stops when it has done its part.  So an idle payload is idle.
 */
void arch_run(unsigned cpus, job_fn *job)
{
    if (cpus > 1) {
        current_job = job;
        cpus_done = 0;
        cpus_wanted = cpus;
        __atomic_store_n(&cpus_started, 1, __ATOMIC_SEQ_CST);
        lapic_write(LAPIC_ICR_LOW, ICR_INIT_OTHERS);
        pause_ticks(1 << 20);
        lapic_write(LAPIC_ICR_LOW, ICR_SIPI_OTHERS | IMAGE_BASE >> 12);
    }
    job(0, cpus);
    while (cpus > 1 &&
           __atomic_load_n(&cpus_done, __ATOMIC_SEQ_CST) < cpus - 1) {
        __builtin_ia32_pause();
    }
}

bool arch_map(uint64_t start, uint64_t end)
{
    static unsigned tables = 3;         /* start.S has made that many */

    for (uint64_t a = start & -LARGE_PAGE; a < end; a += LARGE_PAGE) {
        uint64_t *entry = &page_tables[1][a >> 30];
        uint64_t *directory;

        if (a >> 39) {
            return false;
        }
        if (!*entry) {
            if (tables == PAGE_TABLES) {
                return false;
            }
            directory = page_tables[tables++];
            for (unsigned i = 0; i < 512; i++) {
                directory[i] = 0;
            }
            *entry = (uintptr_t)directory | USER_PAGE;
        }
        directory = (uint64_t *)(*entry & -PAGE_SIZE);
        if (!directory[(a >> 21) % 512]) {
            directory[(a >> 21) % 512] = a | USER_LARGE;
        }
    }
    return true;
}

uint64_t arch_clock(void)
{
    return __builtin_ia32_rdtsc();
}

struct range arch_own(void)
{
    return (struct range) { (uintptr_t)image, (uintptr_t)own_end };
}

uint32_t arch_exec(uint64_t addr, uint32_t value)
{
    /* mov $value, %eax; ret */
    store(addr, 0xb8 | (uint64_t)value << 8 | 0xc3ULL << 40);
    return ((uint32_t (*)(void))addr)();
}

void arch_halt(void)
{
    for (;;) {
        system_call(CALL_PARK, 0, 0);
    }
}
