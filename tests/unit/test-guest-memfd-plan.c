/*
 * Which views of a guest_memfd are bound: each row of the rules, and random
 * sets of views against a model that knows nothing but the rules; the cells
 * into which RAM is cut; what has to be done to a memslot
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "../../accel/kvm/guest-memfd-plan.h"

#define S(name) GUEST_MEMFD_SLOT_STATE_##name

static const char file_a, file_b;

static GmemView view(const void *file, uint64_t offset, uint64_t size,
                     hwaddr gpa)
{
    return (GmemView) {
        .file = file, .offset = offset, .size = size, .gpa = gpa,
        .whole = size, .state = S(_MAX),
    };
}

/* The plan's verdict on the view at @gpa */
static GuestMemfdSlotState state_at(GmemView *views, size_t n, hwaddr gpa)
{
    for (size_t i = 0; i < n; i++) {
        if (views[i].gpa == gpa) {
            return views[i].state;
        }
    }
    g_assert_not_reached();
}

static void test_empty(void)
{
    gmem_plan(NULL, 0);
}

static void test_plain_ram_is_bound(void)
{
    GmemView v[] = {
        view(&file_a, 0, 640 * KiB, 0),
        view(&file_a, 768 * KiB, 3 * GiB - 768 * KiB, 768 * KiB),
        view(&file_a, 3 * GiB, GiB, 4 * GiB),
    };

    gmem_plan(v, ARRAY_SIZE(v));
    for (int i = 0; i < ARRAY_SIZE(v); i++) {
        g_assert_cmpint(v[i].state, ==, S(BOUND));
    }
}

static void test_alias_is_not_bound(void)
{
    /* q35: SMRAM opened high, over the part that is behind the VGA window */
    GmemView v[] = {
        view(&file_a, 0, 2 * GiB, 0),
        view(&file_a, 640 * KiB, 128 * KiB, 0xfeda0000),
    };

    gmem_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 2, 0), ==, S(BOUND));
    g_assert_cmpint(state_at(v, 2, 0xfeda0000), ==, S(ALIAS));
}

static void test_alias_before_ram(void)
{
    /* The alias comes first, and at a lower address */
    GmemView v[] = {
        view(&file_a, 640 * KiB, 128 * KiB, 0x1000),
        view(&file_a, 0, 2 * GiB, 4 * GiB),
    };

    gmem_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 2, 0x1000), ==, S(ALIAS));
    g_assert_cmpint(state_at(v, 2, 4 * GiB), ==, S(BOUND));
}

static void test_lone_alias_is_bound(void)
{
    GmemView v[] = {
        view(&file_a, 0, 640 * KiB, 0),
        view(&file_a, 640 * KiB, 128 * KiB, 0xfeda0000),
    };

    gmem_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 2, 0xfeda0000), ==, S(BOUND));
}

static void test_partial_overlap(void)
{
    GmemView v[] = {
        view(&file_a, 0, 2 * MiB, 0),
        view(&file_a, 2 * MiB - 4 * KiB, MiB, 1 * GiB),
        view(&file_a, 2 * MiB, MiB, 2 * GiB),
    };

    gmem_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 3, 0), ==, S(BOUND));
    g_assert_cmpint(state_at(v, 3, 1 * GiB), ==, S(ALIAS));
    g_assert_cmpint(state_at(v, 3, 2 * GiB), ==, S(BOUND));
}

static void test_equal_views_lowest_address_wins(void)
{
    GmemView v[] = {
        view(&file_a, 0, MiB, 2 * GiB),
        view(&file_a, 0, MiB, 1 * GiB),
    };

    gmem_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 2, 1 * GiB), ==, S(BOUND));
    g_assert_cmpint(state_at(v, 2, 2 * GiB), ==, S(ALIAS));
}

static void test_files_do_not_meet(void)
{
    GmemView v[] = {
        view(&file_a, 0, MiB, 0),
        view(&file_b, 0, MiB, GiB),
    };

    gmem_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(v[0].state, ==, S(BOUND));
    g_assert_cmpint(v[1].state, ==, S(BOUND));
}

static void test_cells_of_ram_before_an_alias(void)
{
    /* The alias is larger than a cell, and lower */
    GmemView v[] = {
        view(&file_a, 0, 512 * MiB, 0),
        view(&file_a, 0, 256 * MiB, 4 * GiB),
        view(&file_a, 256 * MiB, 256 * MiB, 4 * GiB + 256 * MiB),
    };

    v[1].whole = v[2].whole = 2 * GiB;
    gmem_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 3, 0), ==, S(ALIAS));
    g_assert_cmpint(state_at(v, 3, 4 * GiB), ==, S(BOUND));
    g_assert_cmpint(state_at(v, 3, 4 * GiB + 256 * MiB), ==, S(BOUND));
}

static void test_logged(void)
{
    GmemView v = view(&file_a, 0, MiB, 0);

    v.logged = true;
    gmem_plan(&v, 1);
    g_assert_cmpint(v.state, ==, S(DIRTY_LOG));
    v.logged = false;
    v.ahead = true;
    gmem_plan(&v, 1);
    g_assert_cmpint(v.state, ==, S(DIRTY_LOG));
    v.ahead = false;
    gmem_plan(&v, 1);
    g_assert_cmpint(v.state, ==, S(BOUND));
}

static void test_address_space(void)
{
    GmemView v = view(&file_a, 0, MiB, 0);

    v.as_id = 1;
    gmem_plan(&v, 1);
    g_assert_cmpint(v.state, ==, S(ADDRESS_SPACE));
}

static void test_veto(void)
{
    const GuestMemfdSlotState vetoes[] = {
        S(OTHER_VM), S(KERNEL_BUG), S(DISABLED), S(REFUSED),
    };

    for (int i = 0; i < ARRAY_SIZE(vetoes); i++) {
        GmemView v = view(&file_a, 0, MiB, 0);

        /* The veto is the reason, whatever else speaks against binding */
        v.veto = vetoes[i];
        v.as_id = v.ahead = v.logged = 1;
        gmem_plan(&v, 1);
        g_assert_cmpint(v.state, ==, vetoes[i]);
    }
}

#define MAX_VIEWS 24
#define MAX_PAGES 64

static GmemView random_view(GRand *rand, int i)
{
    uint64_t first = g_rand_int_range(rand, 0, MAX_PAGES);
    uint64_t pages = g_rand_int_range(rand, 1, MAX_PAGES - first + 1);
    GmemView v = view(g_rand_boolean(rand) ? &file_a : &file_b,
                      first * 4096, pages * 4096, (uint64_t)i * GiB);

    v.as_id = g_rand_int_range(rand, 0, 8) == 0;
    v.ahead = g_rand_int_range(rand, 0, 8) == 0;
    v.logged = g_rand_int_range(rand, 0, 8) == 0;
    if (g_rand_int_range(rand, 0, 8) == 0) {
        v.veto = g_rand_int_range(rand, S(OTHER_VM), S(_MAX));
    }
    return v;
}

static void shuffle(GRand *rand, GmemView *v, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int j = g_rand_int_range(rand, 0, i + 1);
        GmemView tmp = v[i];

        v[i] = v[j];
        v[j] = tmp;
    }
}

/* The rules, checked page by page, without intervals and without an order */
static void check_rules(const GmemView *v, int n)
{
    const GmemView *owner[2][MAX_PAGES] = {};

    for (int i = 0; i < n; i++) {
        uint64_t first = v[i].offset / 4096, pages = v[i].size / 4096;
        bool could = !v[i].veto && !v[i].as_id && !v[i].ahead &&
                     !v[i].logged;

        /* Bound or alias if and only if nothing else speaks against it */
        g_assert(could == (v[i].state == S(BOUND) || v[i].state == S(ALIAS)));

        /* No page of a file is bound twice */
        for (uint64_t p = first; v[i].state == S(BOUND) && p < first + pages;
             p++) {
            g_assert(!owner[v[i].file == &file_b][p]);
            owner[v[i].file == &file_b][p] = &v[i];
        }
    }
    for (int i = 0; i < n; i++) {
        uint64_t first = v[i].offset / 4096, pages = v[i].size / 4096;
        bool reason = false;

        /* What is called an alias meets a bound view at least as large */
        for (uint64_t p = first; p < first + pages; p++) {
            const GmemView *o = owner[v[i].file == &file_b][p];

            reason |= o && o->size >= v[i].size;
        }
        g_assert(reason || v[i].state != S(ALIAS));
    }
}

static void test_random(void)
{
    guint32 seed = 20261123;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

    g_test_message("seed %u", seed);
    for (int round = 0; round < 5000; round++) {
        GmemView v[MAX_VIEWS], again[MAX_VIEWS];
        int n = g_rand_int_range(rand, 1, MAX_VIEWS + 1);

        for (int i = 0; i < n; i++) {
            again[i] = v[i] = random_view(rand, i);
        }
        gmem_plan(v, n);
        check_rules(v, n);

        /* The same whatever the order in which the views appeared */
        shuffle(rand, again, n);
        gmem_plan(again, n);
        for (int i = 0; i < n; i++) {
            g_assert_cmpint(again[i].gpa, ==, v[i].gpa);
            g_assert_cmpint(again[i].state, ==, v[i].state);
        }
    }
}

/* Where the views are in the file and the guest makes no difference */
static void test_hostile_offsets(void)
{
    static const uint64_t bases[] = {
        GiB, 1ULL << 52, (1ULL << 63) - MAX_PAGES * 4096, 1ULL << 63,
        -(uint64_t)MAX_PAGES * 4096,
    };
    g_autoptr(GRand) rand = g_rand_new_with_seed(20261126);

    for (int round = 0; round < 1000; round++) {
        GmemView near[MAX_VIEWS], far[MAX_VIEWS];
        int n = g_rand_int_range(rand, 1, MAX_VIEWS + 1);
        uint64_t base = bases[round % ARRAY_SIZE(bases)];

        for (int i = 0; i < n; i++) {
            far[i] = near[i] = random_view(rand, i);
            far[i].offset += base;
            far[i].gpa += -(uint64_t)MAX_VIEWS * GiB;
        }
        gmem_plan(near, n);
        gmem_plan(far, n);
        for (int i = 0; i < n; i++) {
            g_assert_cmphex(far[i].offset, ==, near[i].offset + base);
            g_assert_cmpint(far[i].state, ==, near[i].state);
        }
    }
}

/* As often in the large as in the small */
static uint64_t random_size(GRand *rand)
{
    uint64_t size = (uint64_t)g_rand_int(rand) << 32 | g_rand_int(rand);

    return size >> g_rand_int_range(rand, 0, 64);
}

static void test_hostile_sizes(void)
{
    static const unsigned slots[] = { 0, 1, 15, 16, 509, 32764, UINT_MAX };
    g_autoptr(GRand) rand = g_rand_new_with_seed(20261127);

    for (int round = 0; round < 100 * 1000; round++) {
        uint64_t size = MAX(random_size(rand), 1);
        unsigned max_slots = slots[round % ARRAY_SIZE(slots)];
        uint64_t grid = gmem_grid(size, max_slots);
        uint64_t cells = MIN(MAX(max_slots / 16, 1), 1024);
        hwaddr gpa = round % 2 ? random_size(rand) : -random_size(rand);
        uint64_t room = gpa ? -gpa : UINT64_MAX;
        uint64_t cell = gmem_cell_size(gpa, MIN(size, room), grid);

        g_assert_true(is_power_of_2(grid));
        g_assert_cmphex(grid, >=, 128 * MiB);
        g_assert_cmphex(grid, <=, 1ULL << 62);
        /* As small as it can be */
        g_assert_true(grid == 1ULL << 62 || size / cells <= grid);
        g_assert_true(grid == 128 * MiB || size / cells > grid / 2);

        g_assert_cmphex(cell, >, 0);
        g_assert_cmphex(cell, <=, MIN(size, room));
        g_assert_cmphex(gpa / grid, ==, (gpa + (cell - 1)) / grid);
    }
}

static void test_grid(void)
{
    const struct {
        uint64_t size;
        unsigned slots;
        uint64_t grid;
    } rows[] = {
        { 4 * KiB, 32764, 128 * MiB },
        { 8 * GiB, 32764, 128 * MiB },
        { 128 * GiB, 32764, 128 * MiB },
        { 256 * GiB, 32764, 256 * MiB },
        { 257 * GiB, 32764, 512 * MiB },
        { TiB, 32764, GiB },
        { 12 * TiB, 32764, 16 * GiB },
        /* Few memslots, or one: as many cells as there may be */
        { 4 * GiB, 509, 256 * MiB },
        { 8 * GiB, 509, 512 * MiB },
        { 4 * GiB, 32, 2 * GiB },
        { 4 * GiB, 1, 4 * GiB },
        /* No size is too large to have an answer */
        { INT64_MAX, 1, 1ULL << 62 },
        { UINT64_MAX, 32764, 1ULL << 54 },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        g_assert_cmphex(gmem_grid(rows[i].size, rows[i].slots), ==,
                        rows[i].grid);
    }
}

static void test_cells(void)
{
    const struct {
        hwaddr gpa;
        uint64_t size;
        uint64_t cell;
    } rows[] = {
        { 0, 640 * KiB, 640 * KiB },
        { 768 * KiB, 3 * GiB, 256 * KiB },
        { MiB, 3 * GiB, 255 * MiB },
        { 256 * MiB, 3 * GiB, 256 * MiB },
        { 256 * MiB - 4096, 8192, 4096 },
        { 4 * GiB, 300 * MiB, 256 * MiB },
        { 4 * GiB + 256 * MiB, 44 * MiB, 44 * MiB },
        { 1ULL << 63, 1ULL << 63, 256 * MiB },
        { -256 * MiB, 256 * MiB, 256 * MiB },
        { -4096, 4096, 4096 },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        g_assert_cmphex(gmem_cell_size(rows[i].gpa, rows[i].size, 256 * MiB),
                        ==, rows[i].cell);
    }
}

static void test_cells_cover_random_ram(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(20261125);

    for (int round = 0; round < 1000; round++) {
        uint64_t grid = (256 * MiB) << g_rand_int_range(rand, 0, 4);
        hwaddr start = (hwaddr)g_rand_int(rand) * 4096, gpa = start;
        uint64_t size = ((uint64_t)g_rand_int(rand) >> 8) * 4096 + 4096;

        while (gpa < start + size) {
            uint64_t cell = gmem_cell_size(gpa, start + size - gpa, grid);

            g_assert_cmpuint(cell, >, 0);
            g_assert_cmpuint(gpa / grid, ==, (gpa + cell - 1) / grid);
            gpa += cell;
        }
        g_assert_cmphex(gpa, ==, start + size);
    }
}

static void test_action(void)
{
    const uint32_t bound = KVM_MEM_GUEST_MEMFD, log = KVM_MEM_LOG_DIRTY_PAGES;
    const struct {
        uint32_t flags;
        GuestMemfdSlotState state;
        bool logged;
        GmemAction action;
    } rows[] = {
        { bound, S(BOUND), false, GMEM_ACTION_NONE },
        { 0, S(BOUND), false, GMEM_ACTION_SWITCH_LATER },
        /* First it is logged no more, which costs nobody a stop */
        { log, S(BOUND), false, GMEM_ACTION_LOG },
        { bound, S(DIRTY_LOG), true, GMEM_ACTION_SWITCH },
        { 0, S(DIRTY_LOG), true, GMEM_ACTION_LOG },
        { log, S(DIRTY_LOG), true, GMEM_ACTION_NONE },
        /* To be logged soon */
        { bound, S(DIRTY_LOG), false, GMEM_ACTION_SWITCH_LATER },
        { 0, S(DIRTY_LOG), false, GMEM_ACTION_NONE },
        { log, S(DIRTY_LOG), false, GMEM_ACTION_LOG },
        /* Its part of the file is somebody else's */
        { bound, S(ALIAS), false, GMEM_ACTION_SWITCH },
        { 0, S(ALIAS), false, GMEM_ACTION_NONE },
        { 0, S(ADDRESS_SPACE), true, GMEM_ACTION_LOG },
        { log, S(OTHER_VM), false, GMEM_ACTION_LOG },
        { bound, S(REFUSED), false, GMEM_ACTION_SWITCH },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        GmemView v = { .state = rows[i].state, .logged = rows[i].logged };

        g_test_message("row %d", i);
        g_assert_cmpint(gmem_action(rows[i].flags, &v), ==, rows[i].action);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/guest-memfd-plan/empty", test_empty);
    g_test_add_func("/guest-memfd-plan/plain-ram", test_plain_ram_is_bound);
    g_test_add_func("/guest-memfd-plan/alias", test_alias_is_not_bound);
    g_test_add_func("/guest-memfd-plan/alias/before-ram",
                    test_alias_before_ram);
    g_test_add_func("/guest-memfd-plan/alias/lone", test_lone_alias_is_bound);
    g_test_add_func("/guest-memfd-plan/alias/partial", test_partial_overlap);
    g_test_add_func("/guest-memfd-plan/alias/equal",
                    test_equal_views_lowest_address_wins);
    g_test_add_func("/guest-memfd-plan/two-files", test_files_do_not_meet);
    g_test_add_func("/guest-memfd-plan/alias/of-cells",
                    test_cells_of_ram_before_an_alias);
    g_test_add_func("/guest-memfd-plan/dirty-log", test_logged);
    g_test_add_func("/guest-memfd-plan/address-space", test_address_space);
    g_test_add_func("/guest-memfd-plan/veto", test_veto);
    g_test_add_func("/guest-memfd-plan/random", test_random);
    g_test_add_func("/guest-memfd-plan/hostile/offsets", test_hostile_offsets);
    g_test_add_func("/guest-memfd-plan/hostile/sizes", test_hostile_sizes);
    g_test_add_func("/guest-memfd-plan/grid", test_grid);
    g_test_add_func("/guest-memfd-plan/cells", test_cells);
    g_test_add_func("/guest-memfd-plan/cells/random",
                    test_cells_cover_random_ram);
    g_test_add_func("/guest-memfd-plan/action", test_action);

    return g_test_run();
}
