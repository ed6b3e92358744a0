/*
 * Switching memslots of guest_memfd RAM while the guest runs
 *
 * KVM cannot log what a guest writes to bound memslots.  Before a migration
 * they are switched to the host mapping in small steps.  Then logging starts
 * by a flag of live memslots, as for any other RAM.  After the migration they
 * are bound again, in small steps, too.  Neither stops the guest for longer
 * than one step takes, however much RAM there is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "system/guest-memfd-kvm.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "guest-memfd-prefault.h"
#include "guest-memfd-space.h"
#include "guest-memfd-switch.h"

/*
 * What the guest, and whoever waits for the BQL, has between two steps.  A
 * migration waits meanwhile: then they have as long as the step took, at least.
 */
#define PAUSE_US 5000
#define PAUSE_MIN_US 1000

/* Both under the BQL */
static unsigned ahead;           /* who begins to log just now */
static QEMUTimer *timer;

bool kvm_gmem_logging_ahead(void)
{
    return ahead;
}

static bool step(void)
{
    bool more = false;

    for (int i = 0; i < kvm_state->nr_as; i++) {
        KVMMemoryListener *kml = kvm_state->as[i].ml;

        more |= kml && kvm_gmem_step(kml);
    }
    return more;
}

static void background_step(void *opaque)
{
    if (step()) {
        kvm_gmem_switch_later();
    } else {
        kvm_gmem_prefault();
    }
}

void kvm_gmem_switch_later(void)
{
    if (!timer) {
        /* The clock that stands still while the VM is stopped */
        timer = timer_new_us(QEMU_CLOCK_VIRTUAL, background_step, NULL);
    }
    if (!timer_pending(timer)) {
        timer_mod(timer, qemu_clock_get_us(QEMU_CLOCK_VIRTUAL) + PAUSE_US);
    }
}

void kvm_gmem_logging_begins(void)
{
    int64_t start;

    bql_lock();
    ahead++;
    start = g_get_monotonic_time();
    while (kvm_enabled() && step()) {
        int64_t us = g_get_monotonic_time() - start;

        bql_unlock();
        g_usleep(CLAMP(us, PAUSE_MIN_US, PAUSE_US));
        bql_lock();
        start = g_get_monotonic_time();
    }
    bql_unlock();
}

void kvm_gmem_logging_ended(void)
{
    assert(ahead);
    ahead--;
    if (kvm_enabled()) {
        kvm_gmem_switch_later();
    }
}

void kvm_gmem_drop_page_tables(void)
{
    /* Before a VM has run, KVM has none */
    if (!kvm_enabled() || runstate_check(RUN_STATE_INMIGRATE) ||
        !kvm_gmem_shadows_page_tables()) {
        return;
    }
    for (int i = 0; i < kvm_state->nr_as; i++) {
        if (kvm_state->as[i].ml) {
            kvm_gmem_make_anew(kvm_state->as[i].ml);
        }
    }
}

void kvm_gmem_lock_for_log(bool begins)
{
    if (begins) {
        kvm_gmem_logging_begins();
    }
    bql_lock();
    if (begins) {
        /* Nothing is bound before the caller, who has the BQL, logs it all */
        kvm_gmem_logging_ended();
    }
}
