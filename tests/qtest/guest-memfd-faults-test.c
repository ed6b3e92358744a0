/*
 * The fault sweep: each call that a scenario makes for guest_memfd RAM fails
 *
 * A scenario is run once without faults, which counts its calls.  Then it is
 * run again for each point: the n-th call of a kind fails, alone, together
 * with a later one, or with all that follow.  QEMU may have
 * - ended with status 1 and one sentence before the guest ran,
 * - refused a command, and the guest goes on,
 * - given the guest up, where a memslot that has to go cannot be deleted, or
 * - done what it was told,
 * and what the guest has in its memory is checked whichever it was.
 *
 * Points run in a process of their own: when it ends, whatever QEMU did,
 * another goes on with the next point.  With GUEST_MEMFD_FAULTS=all there are
 * many more points; with GUEST_MEMFD_FAULTS=WORDS these are the only one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include "qemu/units.h"
#include "guest-memfd/scenarios.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

/* For one point, against hangs alone */
#define DEADLINE_S  300

typedef enum Verdict {
    ENDED, REFUSED, GIVEN_UP, WENT_ON,
    UNMET,          /* there was no such call this time */
    FAILED,
    VERDICTS_N
} Verdict;

typedef struct Point {
    char *words;
    bool may_give_up;
} Point;

/* What a process of points tells its parent */
typedef struct Progress {
    guint at;                   /* the point */
    int64_t since;              /* when it began */
    off_t output;               /* ... and where its output does */
    bool running;               /* the guest ran */
    Verdict verdict;            /* of the last */
    int tried[VERDICTS_N];
    uint64_t calls[FAULT_KINDS_N];
} Progress;

static Progress *progress;
static GString *table;
static int points_n;

static char *output_path(void)
{
    return g_strdup_printf("%s/output", scenario_tmp);
}

static void run_point(const Scenario *s, SweptVM *swept, const Point *point)
{
    struct stat st;
    Verdict verdict;

    fflush(NULL);
    g_assert_cmpint(fstat(STDERR_FILENO, &st), ==, 0);
    progress->output = st.st_size;
    progress->since = g_get_monotonic_time();
    progress->running = !s->boots;
    g_test_message("%s: %s", s->name, point->words);
    if (!swept->vm) {
        swept_start(s, swept);
    }

    swept->faults = point->words;
    swept->refused = 0;
    vm_set_faults(point->words);
    s->act(s, swept);
    progress->running = true;
    swept_check(swept);
    for (int i = 0; i < FAULT_KINDS_N; i++) {
        progress->calls[i] = vm_count_calls(i);
    }
    verdict = swept->vm->stopped ? GIVEN_UP : swept->refused ? REFUSED
            : vm_count_failed_calls() || !point->words[0] ? WENT_ON : UNMET;
    vm_set_faults("");
    swept->faults = "";

    if (!swept->vm->stopped) {
        /* ... and the memory can be used without faults, too */
        swept_check(swept);
    }
    if (!swept_is_as_new(s, swept)) {
        swept_quit(swept);
    }
    g_assert_true(verdict != GIVEN_UP || point->may_give_up);
    progress->tried[verdict]++;
}

/* Run points from the present one on, in a process of its own */
static pid_t fork_points(const Scenario *s, GArray *points)
{
    g_autofree char *path = output_path();
    pid_t pid;
    int fd;

    fflush(NULL);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid) {
        return pid;
    }
    fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    /* A VM that comes after one that died has no faults when it starts */
    vm_set_faults("");
    {
        SweptVM swept = { .faults = "" };

        for (; progress->at < points->len; progress->at++) {
            run_point(s, &swept, &g_array_index(points, Point, progress->at));
        }
        if (swept.vm) {
            swept_quit(&swept);
        }
    }
    fflush(NULL);
    _exit(0);
}

static int wait_for_points(pid_t pid)
{
    bool late = false;
    int status;

    while (!waitpid(pid, &status, WNOHANG)) {
        if (!late && g_get_monotonic_time() >
                     progress->since + DEADLINE_S * G_USEC_PER_SEC) {
            g_test_message("not within %d s", DEADLINE_S);
            kill(pid, SIGABRT);     /* takes QEMU with it */
            late = true;
        }
        g_usleep(2000);
    }
    return status;
}

/* QEMU's errors in what it wrote, or -1 if it says nothing of its end */
static int count_errors(const char *output)
{
    g_auto(GStrv) lines = g_strsplit(output, "\n", 0);
    bool ended = false;
    int errors = 0;

    for (char **line = lines; *line; line++) {
        ended |= !!strstr(*line, "exit status 1 (expected 0)");
        errors += strstr(*line, "qemu-system-") && strstr(*line, ": ") &&
                  !strstr(*line, "warning: ") && !strstr(*line, "exec ") &&
                  !strstr(*line, "starting QEMU");
    }
    return ended ? errors : -1;
}

/* Returns: false if a point failed */
static bool run_points(const Scenario *s, GArray *points)
{
    g_autofree char *path = output_path();
    bool good = true;

    memset(progress, 0, sizeof(*progress));
    while (progress->at < points->len) {
        g_autofree char *output = NULL;
        int status;

        progress->since = g_get_monotonic_time();
        progress->output = 0;
        status = wait_for_points(fork_points(s, points));
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            break;
        }
        g_assert_true(g_file_get_contents(path, &output, NULL, NULL));
        if (!progress->running &&
            count_errors(output + progress->output) == 1) {
            progress->tried[ENDED]++;
        } else {
            g_test_message("%s", output + progress->output);
            g_test_message("FAILED %s: %s", s->name,
                           g_array_index(points, Point, progress->at).words);
            progress->tried[FAILED]++;
            good = false;
        }
        progress->at++;
    }
    unlink(path);
    return good;
}

/*
 * cap, flags and run have tests of their own (guest-memfd-test.c); uffd is
 * asked for by commands that are refused anyway; vm, vcpu and initvcpu are
 * QEMU's own, but for those of a probe, which has a test of its own, too.
 */
static bool is_left_out(FaultKind kind)
{
    return kind == FAULT_cap || kind == FAULT_flags || kind == FAULT_run ||
           kind == FAULT_uffd || kind == FAULT_vm || kind == FAULT_vcpu ||
           kind == FAULT_initvcpu;
}

static void add_point(GArray *points, FaultKind kind, const char *calls,
                      int err)
{
    Point point = {
        .words = g_strdup_printf("%s@%s=%d", fault_names[kind], calls, err),
        /* What must go cannot; or no memslot can be made, for SMM, say */
        .may_give_up = kind == FAULT_delete ||
                       (kind == FAULT_hva && strchr(calls, '+')),
    };

    g_array_append_val(points, point);
}

/* The first and last calls, and some between */
static void add_kind(GArray *points, FaultKind kind, uint64_t calls, bool all)
{
    const int parts = all ? 5 : 3;
    uint64_t last = 0;

    for (int i = 0; i <= parts; i++) {
        uint64_t n = i == 0 ? 1 : i == 1 ? 2 : calls * i / parts;
        g_autofree char *once = g_strdup_printf("%" PRIu64, n);
        g_autofree char *twice = g_strdup_printf("%" PRIu64 ",%" PRIu64, n,
                                                 n + 2);
        g_autofree char *on = g_strdup_printf("%" PRIu64 "+", n);

        if (n <= last || n > calls) {
            continue;
        }
        last = n;
        if (kind == FAULT_resetrings) {
            /* That is all that can happen to it */
            add_point(points, kind, once, EINTR);
            continue;
        }
        add_point(points, kind, once, ENOMEM);
        if (all || n == 1) {
            add_point(points, kind, on, ENOMEM);
            add_point(points, kind, once, EINTR);
        }
        if (all) {
            add_point(points, kind, twice, ENOMEM);
            add_point(points, kind, once, EINVAL);
        }
    }
}

static void clear_point(gpointer point)
{
    g_free(((Point *)point)->words);
}

static GArray *make_points(const Scenario *s)
{
    const char *wish = getenv("GUEST_MEMFD_FAULTS");
    bool all = !g_strcmp0(wish, "all");
    GArray *points = g_array_new(false, false, sizeof(Point));
    Point none = { .words = g_strdup(wish && !all ? wish : "") };

    g_array_set_clear_func(points, clear_point);
    g_array_append_val(points, none);
    if (wish && !all) {
        return points;
    }
    if (!run_points(s, points) || !progress->tried[WENT_ON]) {
        g_error("%s fails without faults", s->name);
    }
    g_array_set_size(points, 0);
    for (int kind = 0; kind < FAULT_KINDS_N; kind++) {
        if (!is_left_out(kind)) {
            add_kind(points, kind, progress->calls[kind], all);
        }
    }
    return points;
}

static void sweep(const void *data)
{
    const Scenario *s = data;
    g_autoptr(GArray) points = make_points(s);
    const int *tried = progress->tried;
    int64_t begin = g_get_monotonic_time();

    if (!run_points(s, points) || points->len == tried[UNMET]) {
        g_test_fail();
    }
    g_test_message("%s: %u points", s->name, points->len);
    points_n += points->len - tried[UNMET];
    g_string_append_printf(table, "# %-24s %6u %6d %8d %9d %8d %7d %6d %5d s\n",
                           s->name, points->len - tried[UNMET], tried[ENDED],
                           tried[REFUSED], tried[GIVEN_UP], tried[WENT_ON],
                           tried[FAILED], tried[UNMET],
                           (int)((g_get_monotonic_time() - begin) / 1000000));
}

int main(int argc, char **argv)
{
    g_autofree char *disk = NULL;
    int ret;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    scenario_tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_assert(progress != MAP_FAILED);
    table = g_string_new(NULL);
    vm_faults_begin("");
    for (const Scenario *s = scenarios; s->name; s++) {
        g_autofree char *path = g_strdup_printf("/guest-memfd/faults/%s",
                                                s->name);

        if (!s->ring || kvm_dirty_ring_supported()) {
            qtest_add_data_func(path, s, sweep);
        }
    }
    ret = g_test_run();
    vm_faults_end();
    printf("# %-24s points  ended  refused  given-up  went-on  failed  unmet\n"
           "%s# %d points\n", "scenario", table->str, points_n);
    disk = g_strdup_printf("%s/disk.qcow2", scenario_tmp);
    unlink(disk);
    rmdir(scenario_tmp);
    return ret;
}
