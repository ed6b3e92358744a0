/*
 * Guest payload: a program that owns a virtual machine and tests its RAM
 *
 * It has no firmware below and no operating system around it.  A line on the
 * serial port is a command, and one line answers it: "ok ..." or "error ...".
 * main.c has the list of commands.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_PAYLOAD_H
#define GUEST_MEMFD_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE   4096ULL
#define MAX_CPUS    16

/* From @start up to, not including, @end. */
struct range {
    uint64_t start, end;
};

struct range_list {
    unsigned n;
    struct range r[16];
};

/* volatile: the host reads and writes this memory, too */
static inline uint64_t load(uint64_t addr)
{
    return *(volatile uint64_t *)addr; /* see above */
}

static inline void store(uint64_t addr, uint64_t value)
{
    *(volatile uint64_t *)addr = value; /* see above */
}

/* One CPU's part of a job that @cpus CPUs do together. */
typedef void job_fn(unsigned cpu, unsigned cpus);

/* console.c */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool read_line(char *buf, size_t size);

/* fwcfg.c */
void fw_cfg_read(uint16_t key, void *buf, uint32_t len);
uint32_t fw_cfg_read_file(const char *name, void *buf, uint32_t size);

/* ranges.c: lists of ranges that do not overlap */
void range_add(struct range_list *list, uint64_t start, uint64_t end);
void range_exclude(struct range_list *list, uint64_t start, uint64_t end);

/* memory.c: each answers on the serial port */
void memory_fill(const struct range_list *list, unsigned cpus, uint64_t seed);
void memory_check(const struct range_list *list, unsigned cpus, uint64_t seed);
void memory_zero(const struct range_list *list, unsigned cpus);
void memory_count(const struct range_list *list, unsigned cpus);
void memory_touch(const struct range_list *list, unsigned cpus);
void memory_random(const struct range_list *list, unsigned cpus, uint64_t n);
uint64_t memory_gap(void);

/* What an architecture provides; the comments say what is not obvious. */
bool serial_ready(void);        /* is there a character to get? */
char serial_get(void);
void serial_put(char c);
void serial_wait(void);         /* sleep; may return early */
void fw_cfg_dma(const void *request);
void arch_init(void);
void arch_ram(struct range_list *list);     /* what can be tested */
uint64_t arch_ram_size(void);               /* what the machine has */
struct range arch_own(void);    /* what the payload itself occupies */
bool arch_map(uint64_t start, uint64_t end);
uint64_t arch_clock(void);      /* goes on while the guest does not run */
void arch_run(unsigned cpus, job_fn *job);
uint32_t arch_exec(uint64_t addr, uint32_t value);
_Noreturn void arch_reset(void);
_Noreturn void arch_halt(void);

/* Commands of one architecture; false: not one of them. */
bool arch_command(unsigned args, char **arg);

/* main.c */
_Noreturn void main_loop(void);
bool equal(const char *a, const char *b);
bool parse_number(const char *s, uint64_t *n);

#endif
