/*
 * Which views of a guest_memfd are bound: each row of the rules, and random
 * sets of views against a model that knows nothing but the rules
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "../../accel/kvm/guest-memfd-plan.h"

#define S(name) GUEST_MEMFD_SLOT_STATE_##name

static const char file_a, file_b;

static GuestMemfdView view(const void *file, uint64_t offset, uint64_t size,
                           hwaddr gpa)
{
    return (GuestMemfdView) {
        .file = file, .offset = offset, .size = size, .gpa = gpa,
        .state = S(_MAX),
    };
}

/* The plan's verdict on the view at @gpa */
static GuestMemfdSlotState state_at(GuestMemfdView *views, size_t n, hwaddr gpa)
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
    guest_memfd_plan(NULL, 0);
}

static void test_plain_ram_is_bound(void)
{
    GuestMemfdView v[] = {
        view(&file_a, 0, 640 * KiB, 0),
        view(&file_a, 768 * KiB, 3 * GiB - 768 * KiB, 768 * KiB),
        view(&file_a, 3 * GiB, GiB, 4 * GiB),
    };

    guest_memfd_plan(v, ARRAY_SIZE(v));
    for (int i = 0; i < ARRAY_SIZE(v); i++) {
        g_assert_cmpint(v[i].state, ==, S(BOUND));
    }
}

static void test_alias_is_not_bound(void)
{
    /* q35: SMRAM opened high, over the part that is behind the VGA window */
    GuestMemfdView v[] = {
        view(&file_a, 0, 2 * GiB, 0),
        view(&file_a, 640 * KiB, 128 * KiB, 0xfeda0000),
    };

    guest_memfd_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 2, 0), ==, S(BOUND));
    g_assert_cmpint(state_at(v, 2, 0xfeda0000), ==, S(ALIAS));
}

static void test_alias_before_ram(void)
{
    /* The alias comes first, and at a lower address */
    GuestMemfdView v[] = {
        view(&file_a, 640 * KiB, 128 * KiB, 0x1000),
        view(&file_a, 0, 2 * GiB, 4 * GiB),
    };

    guest_memfd_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 2, 0x1000), ==, S(ALIAS));
    g_assert_cmpint(state_at(v, 2, 4 * GiB), ==, S(BOUND));
}

static void test_lone_alias_is_bound(void)
{
    GuestMemfdView v[] = {
        view(&file_a, 0, 640 * KiB, 0),
        view(&file_a, 640 * KiB, 128 * KiB, 0xfeda0000),
    };

    guest_memfd_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 2, 0xfeda0000), ==, S(BOUND));
}

static void test_partial_overlap(void)
{
    GuestMemfdView v[] = {
        view(&file_a, 0, 2 * MiB, 0),
        view(&file_a, 2 * MiB - 4 * KiB, MiB, 1 * GiB),
        view(&file_a, 2 * MiB, MiB, 2 * GiB),
    };

    guest_memfd_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 3, 0), ==, S(BOUND));
    g_assert_cmpint(state_at(v, 3, 1 * GiB), ==, S(ALIAS));
    g_assert_cmpint(state_at(v, 3, 2 * GiB), ==, S(BOUND));
}

static void test_equal_views_lowest_address_wins(void)
{
    GuestMemfdView v[] = {
        view(&file_a, 0, MiB, 2 * GiB),
        view(&file_a, 0, MiB, 1 * GiB),
    };

    guest_memfd_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 2, 1 * GiB), ==, S(BOUND));
    g_assert_cmpint(state_at(v, 2, 2 * GiB), ==, S(ALIAS));
}

static void test_files_do_not_meet(void)
{
    GuestMemfdView v[] = {
        view(&file_a, 0, MiB, 0),
        view(&file_b, 0, MiB, GiB),
    };

    guest_memfd_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(v[0].state, ==, S(BOUND));
    g_assert_cmpint(v[1].state, ==, S(BOUND));
}

static void test_readonly(void)
{
    GuestMemfdView v = view(&file_a, 0, MiB, 0);

    v.readonly = true;
    guest_memfd_plan(&v, 1);
    g_assert_cmpint(v.state, ==, S(READONLY));
}

static void test_readonly_leaves_the_range_free(void)
{
    GuestMemfdView v[] = {
        view(&file_a, 0, 2 * MiB, 0),
        view(&file_a, 0, MiB, GiB),
    };

    v[0].readonly = true;
    guest_memfd_plan(v, ARRAY_SIZE(v));
    g_assert_cmpint(state_at(v, 2, 0), ==, S(READONLY));
    g_assert_cmpint(state_at(v, 2, GiB), ==, S(BOUND));
}

static void test_logged(void)
{
    GuestMemfdView v = view(&file_a, 0, MiB, 0);

    v.logged = true;
    guest_memfd_plan(&v, 1);
    g_assert_cmpint(v.state, ==, S(DIRTY_LOG));
    v.logged = false;
    guest_memfd_plan(&v, 1);
    g_assert_cmpint(v.state, ==, S(BOUND));
}

static void test_address_space(void)
{
    GuestMemfdView v = view(&file_a, 0, MiB, 0);

    v.as_id = 1;
    guest_memfd_plan(&v, 1);
    g_assert_cmpint(v.state, ==, S(ADDRESS_SPACE));
}

static void test_veto(void)
{
    const GuestMemfdSlotState vetoes[] = {
        S(OTHER_VM), S(KERNEL_BUG), S(DISABLED), S(REFUSED),
    };

    for (int i = 0; i < ARRAY_SIZE(vetoes); i++) {
        GuestMemfdView v = view(&file_a, 0, MiB, 0);

        /* The veto is the reason, whatever else speaks against binding */
        v.veto = vetoes[i];
        v.as_id = v.readonly = v.logged = 1;
        guest_memfd_plan(&v, 1);
        g_assert_cmpint(v.state, ==, vetoes[i]);
    }
}

#define MAX_VIEWS 24
#define MAX_PAGES 64

static GuestMemfdView random_view(GRand *rand, int i)
{
    uint64_t first = g_rand_int_range(rand, 0, MAX_PAGES);
    uint64_t pages = g_rand_int_range(rand, 1, MAX_PAGES - first + 1);
    GuestMemfdView v = view(g_rand_boolean(rand) ? &file_a : &file_b,
                            first * 4096, pages * 4096, (uint64_t)i * GiB);

    v.as_id = g_rand_int_range(rand, 0, 8) == 0;
    v.readonly = g_rand_int_range(rand, 0, 8) == 0;
    v.logged = g_rand_int_range(rand, 0, 8) == 0;
    if (g_rand_int_range(rand, 0, 8) == 0) {
        v.veto = g_rand_int_range(rand, S(OTHER_VM), S(_MAX));
    }
    return v;
}

static void shuffle(GRand *rand, GuestMemfdView *v, int n)
{
    for (int i = n - 1; i > 0; i--) {
        int j = g_rand_int_range(rand, 0, i + 1);
        GuestMemfdView tmp = v[i];

        v[i] = v[j];
        v[j] = tmp;
    }
}

/* The rules, checked page by page, without intervals and without an order */
static void check_rules(const GuestMemfdView *v, int n)
{
    const GuestMemfdView *owner[2][MAX_PAGES] = {};

    for (int i = 0; i < n; i++) {
        uint64_t first = v[i].offset / 4096, pages = v[i].size / 4096;
        bool could = !v[i].veto && !v[i].as_id && !v[i].readonly &&
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
            const GuestMemfdView *o = owner[v[i].file == &file_b][p];

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
        GuestMemfdView v[MAX_VIEWS], again[MAX_VIEWS];
        int n = g_rand_int_range(rand, 1, MAX_VIEWS + 1);

        for (int i = 0; i < n; i++) {
            again[i] = v[i] = random_view(rand, i);
        }
        guest_memfd_plan(v, n);
        check_rules(v, n);

        /* The same whatever the order in which the views appeared */
        shuffle(rand, again, n);
        guest_memfd_plan(again, n);
        for (int i = 0; i < n; i++) {
            g_assert_cmpint(again[i].gpa, ==, v[i].gpa);
            g_assert_cmpint(again[i].state, ==, v[i].state);
        }
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
    g_test_add_func("/guest-memfd-plan/readonly", test_readonly);
    g_test_add_func("/guest-memfd-plan/readonly/alias",
                    test_readonly_leaves_the_range_free);
    g_test_add_func("/guest-memfd-plan/dirty-log", test_logged);
    g_test_add_func("/guest-memfd-plan/address-space", test_address_space);
    g_test_add_func("/guest-memfd-plan/veto", test_veto);
    g_test_add_func("/guest-memfd-plan/random", test_random);

    return g_test_run();
}
