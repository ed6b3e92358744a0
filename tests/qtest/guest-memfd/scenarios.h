/*
 * What a VM goes through while the kernel refuses calls (the fault sweep)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_SCENARIOS_H
#define TESTS_GUEST_MEMFD_SCENARIOS_H

#include "vm.h"
#include "virtio.h"

/**
 * SweptVM: a VM that obeys vm_set_faults(), and what its memory must hold
 *
 * @vm: NULL before a scenario of the kind @boots has started it
 * @faults: that are set
 * @seed: of the pattern in the part of RAM that is kept
 * @running: the guest has run
 * @refused: how often QEMU refused to do something, in a sentence
 * @used: not fit for another time
 * @driver: of a device that gives memory back, where there is one
 * @slots, @files, @fds: bound ranges, guest_memfds, and all open files when all
 *     is well
 */
typedef struct SweptVM {
    VM *vm;
    const char *faults;
    int seed;
    bool running;
    int refused;
    bool used;
    VirtioDriver *driver;
    int slots, files, fds;
} SweptVM;

/**
 * Scenario: what is swept
 *
 * @act: do it once, while faults may be set; end where it can be done again,
 *     with all of @seed in memory
 * @args: of the VM
 * @boots: @act starts the VM
 * @faulty_target: a migration's target obeys the faults, not the source
 * @ring: needs a KVM with a dirty ring
 * @disk: needs one, for snapshots
 */
typedef struct Scenario {
    const char *name;
    void (*act)(const struct Scenario *scenario, SweptVM *swept);
    const char *args;
    bool boots, faulty_target, ring, disk;
} Scenario;

/* The last has no name */
extern const Scenario scenarios[];

/* For the files of scenarios; made and removed by the caller */
extern char *scenario_tmp;

/* Start the VM and fill its memory, unless the scenario does */
void swept_start(const Scenario *scenario, SweptVM *swept);
void swept_quit(SweptVM *swept);

/* The memory holds what it must, whether the guest runs or was stopped */
void swept_check(SweptVM *swept);

/* Nothing was left behind, and all is bound as at first */
bool swept_is_as_new(const Scenario *scenario, SweptVM *swept);

#endif
