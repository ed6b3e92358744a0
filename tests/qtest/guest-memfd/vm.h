/*
 * VMs whose RAM is a guest_memfd, running the payload of tests/guest-memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_VM_H
#define TESTS_GUEST_MEMFD_VM_H

#include "../libqtest.h"
#include "../../guest-memfd/fault.h"

#define VM_FAULT_LIB "tests/guest-memfd/libguest-memfd-fault.so"

typedef struct VM {
    QTestState *qts;
    int serial;                 /* the payload's console */
    GString *input;             /* read from it, not used yet */
    uint64_t count;             /* where vm_start_count() began */
    /*
     * QEMU may give the guest up ("internal-error").  Then it is stopped, and
     * what waits for the guest waits no longer.
     */
    bool may_stop, stopped;
    int resets;                 /* that the guest may make; others are faults */
} VM;

/* What architectures differ in; under KVM, the guest's is the host's */
#ifdef HOST_AARCH64
#define VM_CPU              "host"
#define VM_TYPE             "virt"          /* where one machine will do */
#define VM_RAM_START        (1 * GiB)
#else
#define VM_CPU              "host,-arch-capabilities"
#define VM_TYPE             "q35"
#define VM_RAM_START        0
#endif

/* Guest-physical address of an offset into RAM */
#define VM_AT(offset)       ((uint64_t)(VM_RAM_START + (offset)))

/* The machines for which vm_add_tests() makes a test each */
typedef struct VMKind {
    const char *name;
    const char *machine;
    int cpus;
} VMKind;

extern const VMKind vm_kinds[2];

/*
 * Does somebody listen at a UNIX socket?  Its file appears before that.
 */
bool vm_socket_listens(const char *path);

/* Command line of a VM with backend "ram0" of 128 MiB; the rest is up to you */
#define VM_RAM "128M"
#define VM_RAM_SIZE (128 * MiB)
#define VM_MACHINE(machine) \
    "-machine " machine ",memory-backend=ram0 -m " VM_RAM
#define VM_BACKEND "-object memory-backend-guest-memfd,id=ram0,size=" VM_RAM

/*
 * Limits are against hangs alone: the host may be an emulated one, and busy
 * with other things
 */
#define VM_TIMEOUT_S 600

/* Wait until it is true; it is evaluated again and again */
#define VM_WAIT(condition) \
    for (int64_t end_ = g_get_monotonic_time() + \
                        VM_TIMEOUT_S * G_USEC_PER_SEC; \
         !(condition); g_usleep(1000)) { \
        if (g_get_monotonic_time() > end_) { \
            g_error("not within %d s: %s", VM_TIMEOUT_S, #condition); \
        } \
    }

/**
 * vm_test_init: begin a test program
 *
 * Returns: false, having told the test harness why, if this host has no
 * mappable guest_memfd: then there is nothing to test
 */
bool vm_test_init(int *argc, char ***argv);

/*
 * KVM shadows page tables here, and takes from QEMU's what it needs:
 * preallocation fills these, too
 */
bool vm_prealloc_maps(void);

/* Add /guest-memfd/@group/NAME of each of vm_kinds, which @func gets */
void vm_add_tests(const char *group, GTestDataFunc func);

/*
 * VMs that start between these two are refused by the kernel what @faults say
 * (tests/guest-memfd/fault.c; "" for nothing yet, NULL for what is set), and
 * obey vm_set_faults() as long as they live
 */
void vm_faults_begin(const char *faults);
void vm_faults_end(void);
/* Other faults from now on; calls are counted anew */
void vm_set_faults(const char *faults);
/* How often such VMs made a call since then */
uint64_t vm_count_calls(FaultKind kind);
/* ... and how often it failed */
uint64_t vm_count_failed_calls(void);

/*
 * Start a VM with these arguments; it runs the payload, KVM and no devices.
 * With GUEST_MEMFD_IDLE_VCPUS in the environment, its vCPUs run only when no
 * other thread wants to.
 */
VM *vm_start(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* As in query-status */
bool vm_has_status(VM *vm, const char *status);
/* Wait until the payload greets: after vm_start() or a reset */
void vm_wait_ready(VM *vm);
/* The guest resets its machine, and greets again */
void vm_reset(VM *vm);
void vm_quit(VM *vm);

/* Wake the payload without a command, so that it does not answer */
void vm_poke(VM *vm);
/* Give the payload a command; what it answers after "ok" */
char *vm_command(VM *vm, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* ... when the answer does not matter */
void vm_do(VM *vm, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* All RAM that the payload does not need itself gets the pattern of @seed */
void vm_fill(VM *vm, uint64_t seed);
/* ... and the guest finds it there */
void vm_check(VM *vm, uint64_t seed);
/* The same for a range of addresses, which may be in a DIMM */
void vm_fill_range(VM *vm, uint64_t start, uint64_t len, uint64_t seed);
void vm_check_range(VM *vm, uint64_t start, uint64_t len, uint64_t seed);
/* The guest finds zeroes there */
void vm_check_zero(VM *vm, uint64_t start, uint64_t len);
/* A word of memory, as the guest reads and writes it */
uint64_t vm_read64(VM *vm, uint64_t addr);
void vm_write64(VM *vm, uint64_t addr, uint64_t value);

/* What query-guest-memfd says of a backend; NULL if it does not list it */
QDict *vm_info(VM *vm, const char *id);
bool vm_info_exists(VM *vm, const char *id);
uint64_t vm_info_number(VM *vm, const char *id, const char *member);
/* How many ranges of the backend are in this state ("bound", "alias", ...) */
int vm_count_slots(VM *vm, const char *id, const char *state);
/* Logging has ended, and what was switched is bound again; the VM must run */
void vm_wait_settled(VM *vm, const char *id);
/* All RAM that the guest can see is bound, and no byte is only mapped */
void vm_assert_bound(VM *vm, const char *id, uint64_t size);
/* ... whatever its size is: what it has of slots is bound */
void vm_assert_slots_bound(VM *vm, const char *id);
/* No RAM is bound, and the reason is @state */
void vm_assert_unbound(VM *vm, const char *id, const char *state);

/* Start a VM that must fail with exit status 1; what it wrote to stderr */
char *vm_fail(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* Let @cpus CPUs of the guest count in a range; check what they did */
void vm_start_count(VM *vm, int cpus, uint64_t start, uint64_t len);
void vm_stop_count(VM *vm);

#define VM_GMEM_LINK "kvm-gmem"

/* Descriptors of QEMU whose link in /proc has @text in it; "" for all */
GArray *vm_list_fds(VM *vm, const char *text);
/* How many of them are guest_memfds */
int vm_count_gmem_fds(VM *vm);
/* ... soon: a RAMBlock closes its file after an RCU grace period */
void vm_wait_gmem_fds(VM *vm, int n);
/* Lines of QEMU's /proc/PID/maps that show one of them */
int vm_count_maps(VM *vm);

#endif
