/*
 * Guest payload: the commands
 *
 * Numbers are as in C, and addresses guest-physical.
 *
 *   info              "ok ram=BYTES cpus=N own=START-END ranges=START-END,..."
 *                     where the ranges are what fill, check and count do all
 *                     of; each END is the first address behind
 *   fill, check       a pattern (pattern.h) in all RAM; "ok BYTES" or
 *                     "error at=ADDRESS expected=VALUE found=VALUE"
 *   fillr, checkr     the same in one range, which may be a hot-plugged DIMM
 *   zero              check that a range is zero
 *   count             add 1 to the first word of each page, pass after pass:
 *                     "ok counting", then until the next line, whatever it
 *                     says: "ok passes=N", if each page holds what it must
 *   gap               "ok ticks=N": the longest time that a CPU of the last
 *                     count needed from one page to the next
 *   touch             write one word of each page: "ok pages=N ticks=N"
 *   random            read words here and there in a range, each address made
 *                     from the word before: "ok ticks=N"
 *   clock             "ok ticks=N": the clock that all of these are told in
 *   read64, write64   "ok VALUE", "ok"
 *   exec              store code, run it, twice; "ok" if it did as it should
 *   smp               how many CPUs share the work of the commands above
 *   spin              "ok spinning", and a busy loop until the next line
 *   reset, halt       "ok"; after a reset the greeting comes again
 *
 * An architecture adds to them: see its arch_command().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"

#define FW_CFG_NB_CPUS  0x05

#define MAX_ARGS        4

static uint64_t ram_size;
static uint16_t machine_cpus;
static unsigned cpus = 1;

bool equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* As in C: 4096 or 0x1000. */
bool parse_number(const char *s, uint64_t *n)
{
    unsigned base = 10;

    if (s[0] == '0' && s[1] == 'x') {
        base = 16;
        s += 2;
    }
    *n = 0;
    do {
        unsigned digit = *s >= 'a' ? *s - 'a' + 10u : *s - '0' + 0u;

        if (digit >= base) {
            return false;
        }
        *n = *n * base + digit;
    } while (*++s);
    return true;
}

/* All RAM but the payload's own, mapped. */
static const struct range_list *all_ram(void)
{
    static struct range_list list;
    struct range own = arch_own();

    list.n = 0;
    arch_ram(&list);
    range_exclude(&list, own.start, own.end);
    for (unsigned i = 0; i < list.n; i++) {
        if (!arch_map(list.r[i].start, list.r[i].end)) {
            say("error no page tables left to map %lx\n", list.r[i].start);
            arch_halt();
        }
    }
    return &list;
}

/* One range, mapped; NULL after an error line. */
static const struct range_list *one_range(uint64_t start, uint64_t len,
                                          uint64_t align)
{
    static struct range_list list;
    struct range own = arch_own();

    if (start % align || len % align || !len || start + len < start) {
        say("error start and length must be multiples of %lu\n", align);
        return NULL;
    }
    if (start < own.end && start + len > own.start) {
        say("error the payload itself is at %lx-%lx\n", own.start, own.end);
        return NULL;
    }
    if (!arch_map(start, start + len)) {
        say("error no page tables left to map %lx\n", start);
        return NULL;
    }
    list.n = 0;
    range_add(&list, start, start + len);
    return &list;
}

static void info(const uint64_t *arg)
{
    struct range own = arch_own();
    const struct range_list *list = all_ram();
    const char *separator = "";

    say("ok ram=%lu cpus=%lu own=%lx-%lx ranges=", ram_size,
        (unsigned long)machine_cpus, own.start, own.end);
    for (unsigned i = 0; i < list->n; i++) {
        say("%s%lx-%lx", separator, list->r[i].start, list->r[i].end);
        separator = ",";
    }
    say("\n");
}

static void fill(const uint64_t *arg)
{
    memory_fill(all_ram(), cpus, arg[0]);
}

static void check(const uint64_t *arg)
{
    memory_check(all_ram(), cpus, arg[0]);
}

static void fillr(const uint64_t *arg)
{
    const struct range_list *list = one_range(arg[0], arg[1], 8);

    if (list) {
        memory_fill(list, cpus, arg[2]);
    }
}

static void checkr(const uint64_t *arg)
{
    const struct range_list *list = one_range(arg[0], arg[1], 8);

    if (list) {
        memory_check(list, cpus, arg[2]);
    }
}

static void zero(const uint64_t *arg)
{
    const struct range_list *list = one_range(arg[0], arg[1], 8);

    if (list) {
        memory_zero(list, cpus);
    }
}

static void count(const uint64_t *arg)
{
    const struct range_list *list = one_range(arg[0], arg[1], PAGE_SIZE);

    if (list) {
        memory_count(list, cpus);
    }
}

static void gap(const uint64_t *arg)
{
    say("ok ticks=%lu\n", memory_gap());
}

static void touch(const uint64_t *arg)
{
    const struct range_list *list = one_range(arg[0], arg[1], PAGE_SIZE);

    if (list) {
        memory_touch(list, cpus);
    }
}

static void random(const uint64_t *arg)
{
    const struct range_list *list = one_range(arg[0], arg[1], PAGE_SIZE);

    if (list) {
        memory_random(list, cpus, arg[2]);
    }
}

static void read_clock(const uint64_t *arg)
{
    say("ok ticks=%lu\n", arch_clock());
}

static void read64(const uint64_t *arg)
{
    if (one_range(arg[0], 8, 8)) {
        say("ok %lx\n", load(arg[0]));
    }
}

static void write64(const uint64_t *arg)
{
    if (one_range(arg[0], 8, 8)) {
        store(arg[0], arg[1]);
        say("ok\n");
    }
}

/* Run code right after it was stored; twice, as the first run may stick. */
static void exec(const uint64_t *arg)
{
    if (!one_range(arg[0], 16, 8)) {
        return;
    }
    for (uint32_t value = 0x600d0001; value <= 0x600d0002; value++) {
        uint32_t found = arch_exec(arg[0], value);

        if (found != value) {
            say("error at=%lx expected=%lx found=%lx\n", arg[0],
                (uint64_t)value, (uint64_t)found);
            return;
        }
    }
    say("ok\n");
}

static void nothing(unsigned cpu, unsigned n)
{
}

static void smp(const uint64_t *arg)
{
    if (arg[0] < 1 || arg[0] > machine_cpus || arg[0] > MAX_CPUS) {
        say("error this machine has %lu CPUs, the payload can use %lu\n",
            (unsigned long)machine_cpus, (unsigned long)MAX_CPUS);
        return;
    }
    cpus = arg[0];
    arch_run(cpus, nothing);
    say("ok cpus=%lu\n", (unsigned long)cpus);
}

static void spin(const uint64_t *arg)
{
    char line[8];

    say("ok spinning\n");
    do {
        for (unsigned i = 0; i < 1u << 24; i++) {
            asm volatile("");
        }
    } while (!serial_ready());
    read_line(line, sizeof(line));
    say("ok\n");
}

static void halt(const uint64_t *arg)
{
    say("ok\n");
    arch_halt();
}

static void reset(const uint64_t *arg)
{
    say("ok\n");
    arch_reset();
}

static const struct {
    const char *name;
    unsigned args;
    void (*run)(const uint64_t *arg);
    const char *usage;
} commands[] = {
    { "info",    0, info,    "" },
    { "fill",    1, fill,    " SEED" },
    { "check",   1, check,   " SEED" },
    { "fillr",   3, fillr,   " START LENGTH SEED" },
    { "checkr",  3, checkr,  " START LENGTH SEED" },
    { "zero",    2, zero,    " START LENGTH" },
    { "count",   2, count,   " all | START LENGTH" },
    { "gap",     0, gap,     "" },
    { "touch",   2, touch,   " all | START LENGTH" },
    { "random",  3, random,  " START LENGTH ACCESSES" },
    { "clock",   0, read_clock, "" },
    { "read64",  1, read64,  " ADDRESS" },
    { "write64", 2, write64, " ADDRESS VALUE" },
    { "exec",    1, exec,    " ADDRESS" },
    { "smp",     1, smp,     " CPUS" },
    { "spin",    0, spin,    "" },
    { "halt",    0, halt,    "" },
    { "reset",   0, reset,   "" },
};

static void obey(unsigned args, char **arg)
{
    uint64_t number[MAX_ARGS] = { 0 };
    const char *usage = NULL;
    unsigned numbers = 0;

    if (arch_command(args, arg)) {
        return;
    }
    if (args == 2 && equal(arg[0], "count") && equal(arg[1], "all")) {
        memory_count(all_ram(), cpus);
        return;
    }
    if (args == 2 && equal(arg[0], "touch") && equal(arg[1], "all")) {
        memory_touch(all_ram(), cpus);
        return;
    }
    while (numbers + 1 < args &&
           parse_number(arg[numbers + 1], &number[numbers])) {
        numbers++;
    }
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (!equal(arg[0], commands[i].name)) {
            continue;
        }
        usage = commands[i].usage;
        if (args == commands[i].args + 1 && numbers == commands[i].args) {
            commands[i].run(number);
            return;
        }
    }
    if (usage) {
        say("error usage: %s%s\n", arg[0], usage);
    } else {
        say("error there is no command '%s'\n", arg[0]);
    }
}

static unsigned split(char *line, char **arg)
{
    unsigned n = 0;

    while (n <= MAX_ARGS) {
        while (*line == ' ') {
            *line++ = '\0';
        }
        if (!*line) {
            break;
        }
        arg[n++] = line;
        while (*line && *line != ' ') {
            line++;
        }
    }
    return n;
}

_Noreturn void main_loop(void)
{
    static char line[128];
    char *arg[MAX_ARGS + 1];

    arch_init();
    ram_size = arch_ram_size();
    fw_cfg_read(FW_CFG_NB_CPUS, &machine_cpus, sizeof(machine_cpus));
    say("guest-memfd payload ready ram=%lu cpus=%lu\n", ram_size,
        (unsigned long)machine_cpus);

    for (;;) {
        if (!read_line(line, sizeof(line))) {
            say("error a line may have %lu characters\n", sizeof(line) - 1);
        } else {
            unsigned args = split(line, arg);

            if (args) {
                obey(args, arg);
            }
        }
    }
}
