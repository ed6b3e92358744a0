/*
 * Guest payload: the loops that fill, check and dirty memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"
#include "pattern.h"

/* Looking at the serial port leaves the guest: do it this rarely. */
#define PAGES_PER_POLL 4096

/* The job that arch_run() spreads over the CPUs, and what they found. */
static struct {
    const struct range_list *list;
    uint64_t seed;
    uint64_t accesses;
    bool zero;
    bool stop;
} job;

static struct result {
    uint64_t bytes;
    uint64_t bad, expected, found;
    /* count: in which pass it stopped, and at which page of which range */
    uint64_t pass, at;
    unsigned range;
    uint64_t gap;
} cpu_result[MAX_CPUS];

/* What of range @i is for @cpu: an equal number of pages, in one piece. */
static struct range share(unsigned i, unsigned cpu, unsigned cpus)
{
    const struct range *r = &job.list->r[i];
    uint64_t pages = (r->end - r->start) / PAGE_SIZE;
    struct range s = {
        .start = r->start + pages * cpu / cpus * PAGE_SIZE,
        .end = r->start + pages * (cpu + 1) / cpus * PAGE_SIZE,
    };

    if (cpu + 1 == cpus) {
        s.end = r->end;
    }
    return s;
}

static void fill(unsigned cpu, unsigned cpus)
{
    struct result *result = &cpu_result[cpu];

    result->bytes = 0;
    result->expected = result->found = 0;
    for (unsigned i = 0; i < job.list->n; i++) {
        struct range s = share(i, cpu, cpus);

        for (uint64_t a = s.start; a < s.end; a += 8) {
            store(a, guest_memfd_pattern(a, job.seed));
        }
        result->bytes += s.end - s.start;
    }
}

static void check(unsigned cpu, unsigned cpus)
{
    struct result *result = &cpu_result[cpu];

    result->bytes = 0;
    result->expected = result->found = 0;
    for (unsigned i = 0; i < job.list->n; i++) {
        struct range s = share(i, cpu, cpus);

        for (uint64_t a = s.start; a < s.end; a += 8) {
            uint64_t expected =
                job.zero ? 0 : guest_memfd_pattern(a, job.seed);
            uint64_t found = load(a);

            if (found != expected) {
                result->bad = a;
                result->expected = expected;
                result->found = found;
                return;
            }
        }
        result->bytes += s.end - s.start;
    }
}

static void answer(unsigned cpus)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < cpus; i++) {
        if (cpu_result[i].expected != cpu_result[i].found) {
            say("error at=%lx expected=%lx found=%lx\n", cpu_result[i].bad,
                cpu_result[i].expected, cpu_result[i].found);
            return;
        }
        bytes += cpu_result[i].bytes;
    }
    say("ok %lu\n", bytes);
}

void memory_fill(const struct range_list *list, unsigned cpus, uint64_t seed)
{
    job.list = list;
    job.seed = seed;
    arch_run(cpus, fill);
    answer(cpus);
}

void memory_check(const struct range_list *list, unsigned cpus, uint64_t seed)
{
    job.list = list;
    job.seed = seed;
    job.zero = false;
    arch_run(cpus, check);
    answer(cpus);
}

void memory_zero(const struct range_list *list, unsigned cpus)
{
    job.list = list;
    job.zero = true;
    arch_run(cpus, check);
    answer(cpus);
}

static inline bool stop(unsigned cpu, uint64_t step)
{
    if (step % PAGES_PER_POLL) {
        return false;
    }
    if (cpu == 0 && serial_ready()) {
        __atomic_store_n(&job.stop, true, __ATOMIC_RELEASE);
    }
    return __atomic_load_n(&job.stop, __ATOMIC_ACQUIRE);
}

/* What keeps a CPU from its next page: a fault, or that it does not run. */
static uint64_t note_gap(struct result *result, uint64_t before)
{
    uint64_t now = arch_clock();

    if (now - before > result->gap) {
        result->gap = now - before;
    }
    return now;
}

/*
 * Add one to the first word of every page, in order, pass after pass.  The
 * memory itself holds the count, so a lost or doubled write shows.
 */
static void count(unsigned cpu, unsigned cpus)
{
    struct result *result = &cpu_result[cpu];
    uint64_t step = 0;
    uint64_t before = arch_clock();

    for (result->pass = 1;; result->pass++) {
        /* A CPU may have no page at all: poll between passes, too. */
        result->range = 0;
        result->at = 0;
        if (stop(cpu, ++step)) {
            return;
        }
        for (unsigned i = 0; i < job.list->n; i++) {
            struct range s = share(i, cpu, cpus);

            for (uint64_t a = s.start; a < s.end; a += PAGE_SIZE) {
                if (stop(cpu, ++step)) {
                    result->range = i;
                    result->at = a;
                    return;
                }
                store(a, result->pass == 1 ? 1 : load(a) + 1);
                before = note_gap(result, before);
            }
        }
    }
}

/* Each page before the place where @cpu stopped is one ahead of the others. */
static void check_count(unsigned cpu, unsigned cpus)
{
    struct result *result = &cpu_result[cpu];

    result->bytes = 0;
    result->expected = result->found = 0;
    for (unsigned i = 0; i < job.list->n; i++) {
        struct range s = share(i, cpu, cpus);

        for (uint64_t a = s.start; a < s.end; a += PAGE_SIZE) {
            bool ahead = i < result->range ||
                         (i == result->range && a < result->at);
            uint64_t expected = result->pass - !ahead;
            uint64_t found = load(a);

            /* The first pass has not come to this page. */
            if (expected == 0) {
                return;
            }
            if (found != expected) {
                result->bad = a;
                result->expected = expected;
                result->found = found;
                return;
            }
            result->bytes += PAGE_SIZE;
        }
    }
}

void memory_count(const struct range_list *list, unsigned cpus)
{
    char line[8];
    uint64_t passes = UINT64_MAX;

    job.list = list;
    job.stop = false;
    for (unsigned i = 0; i < MAX_CPUS; i++) {
        cpu_result[i].gap = 0;
    }
    say("ok counting\n");
    arch_run(cpus, count);
    read_line(line, sizeof(line));

    arch_run(cpus, check_count);
    for (unsigned i = 0; i < cpus; i++) {
        if (cpu_result[i].expected != cpu_result[i].found) {
            answer(cpus);
            return;
        }
        if (cpu_result[i].pass - 1 < passes) {
            passes = cpu_result[i].pass - 1;
        }
    }
    say("ok passes=%lu\n", passes);
}

/* Of the CPUs that took part in the last count. */
uint64_t memory_gap(void)
{
    uint64_t gap = 0;

    for (unsigned i = 0; i < MAX_CPUS; i++) {
        if (cpu_result[i].gap > gap) {
            gap = cpu_result[i].gap;
        }
    }
    return gap;
}

static void touch(unsigned cpu, unsigned cpus)
{
    struct result *result = &cpu_result[cpu];

    result->bytes = 0;
    for (unsigned i = 0; i < job.list->n; i++) {
        struct range s = share(i, cpu, cpus);

        for (uint64_t a = s.start; a < s.end; a += PAGE_SIZE) {
            store(a, 1);
        }
        result->bytes += s.end - s.start;
    }
}

void memory_touch(const struct range_list *list, unsigned cpus)
{
    uint64_t bytes = 0;
    uint64_t start;

    job.list = list;
    start = arch_clock();
    arch_run(cpus, touch);
    start = arch_clock() - start;
    for (unsigned i = 0; i < cpus; i++) {
        bytes += cpu_result[i].bytes;
    }
    say("ok pages=%lu ticks=%lu\n", (unsigned long)(bytes / PAGE_SIZE),
        start);
}

/*
 * The next address depends on what the last one held, so that no processor
 * can look for it before.  The multiplier is Knuth's, of MMIX.
 */
static void random_walk(unsigned cpu, unsigned cpus)
{
    const struct range *r = &job.list->r[0];
    uint64_t words = (r->end - r->start) / 8;
    uint64_t x = cpu + 1;

    for (uint64_t i = 0; i < job.accesses; i++) {
        x = x * 6364136223846793005ULL + 1442695040888963407ULL;
        /* Fewer than 2^32 words */
        x += load(r->start + ((x >> 32) * words >> 32) * 8);
    }
}

void memory_random(const struct range_list *list, unsigned cpus, uint64_t n)
{
    uint64_t start;

    job.list = list;
    job.accesses = n;
    start = arch_clock();
    arch_run(cpus, random_walk);
    say("ok ticks=%lu\n", arch_clock() - start);
}
