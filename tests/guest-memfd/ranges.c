/*
 * Guest payload: which addresses to test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"

#define MAX_RANGES (sizeof(((struct range_list *)0)->r) / sizeof(struct range))

void range_add(struct range_list *list, uint64_t start, uint64_t end)
{
    if (start >= end) {
        return;
    }
    if (list->n == MAX_RANGES) {
        say("error more than %lu ranges of RAM\n", MAX_RANGES);
        arch_halt();
    }
    list->r[list->n].start = start;
    list->r[list->n].end = end;
    list->n++;
}

void range_exclude(struct range_list *list, uint64_t start, uint64_t end)
{
    struct range_list old = *list;

    list->n = 0;
    for (unsigned i = 0; i < old.n; i++) {
        const struct range *r = &old.r[i];

        range_add(list, r->start, r->end < start ? r->end : start);
        range_add(list, r->start > end ? r->start : end, r->end);
    }
}
