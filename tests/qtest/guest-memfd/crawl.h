/*
 * A migration that gets nowhere: meanwhile all writes to the RAM are logged
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_CRAWL_H
#define TESTS_GUEST_MEMFD_CRAWL_H

#include "vm.h"

/* Bytes a second */
#define CRAWL_BANDWIDTH (64 * KiB)

/*
 * Start it, with something in the RAM from @start on (pages of zeroes would be
 * sent in no time), and have it cancelled.  These check "ram0", all of whose
 * memslots are bound before and after, and none in between.
 */
void crawl_start(VM *vm, uint64_t start);
void crawl_cancel(VM *vm);

/* Wait until nothing is logged any more, soon after the end of a migration */
void crawl_wait_bound(VM *vm);

#endif
