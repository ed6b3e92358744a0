/*
 * Does this arm64 kernel let a guest execute what it wrote to a guest_memfd?
 *
 * Linux 6.18 to 7.0, on CPUs without CTR_EL0.DIC, never makes a page of a
 * bound memslot executable that was first touched as data: the guest faults
 * on it for ever ("KVM: arm64: Handle permission faults with guest_memfd",
 * Linux 7.1, mended that).  No capability or version tells the kernels apart,
 * since the fix may be backported, so we ask by behaviour: a VM of its own, on
 * a thread of its own, since QEMU may be forbidden to fork.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "system/kvm_int.h"
#include "accel/kvm/guest-memfd-probe.h"

#define GUEST_BASE 0x80000000ULL
#define GUEST_MMIO 0x10000000ULL

/*
 * A good kernel needs 2 ms, an emulated one more.  Counted is what the thread
 * was given, so that a busy machine makes no difference.
 */
#define PROBE_CPU_MS 1000
/* Should it never be given that much */
#define PROBE_MS (60 * 1000)

/*
 * x0: the instruction "ret", x1: where to store and call it, x2: an address
 * without memory, to leave the guest by
 */
static const uint32_t guest_code[] = {
    0xb9000020, /* str w0, [x1] */
    0xd5033b9f, /* dsb ish */
    0xd50b7521, /* ic ivau, x1 */
    0xd5033b9f, /* dsb ish */
    0xd5033fdf, /* isb */
    0xd63f0020, /* blr x1 */
    0xb9000040, /* str w0, [x2] */
    0x14000000, /* b . */
};
#define INSTRUCTION_RET 0xd65f03c0

typedef struct Probe {
    int vm;
    int cpu;
    int file;
    void *memory;
    size_t memory_size;
    struct kvm_run *run;
    size_t run_size;
    QemuSemaphore done;
    int ret;                    /* of KVM_RUN: 0 or -errno */
} Probe;

static bool set_register(int cpu, size_t offset, uint64_t value)
{
    struct kvm_one_reg reg = {
        .id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE |
              offset / sizeof(uint32_t),
        .addr = (uintptr_t)&value,
    };

    return ioctl(cpu, KVM_SET_ONE_REG, &reg) == 0;
}

/* Two pages of guest_memfd, bound at GUEST_BASE; the code is in the first */
static bool bind_memory(Probe *p)
{
    struct kvm_create_guest_memfd create = {
        .size = p->memory_size,
        .flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
    };
    struct kvm_userspace_memory_region2 region = {
        .flags = KVM_MEM_GUEST_MEMFD,
        .guest_phys_addr = GUEST_BASE,
        .memory_size = p->memory_size,
    };

    p->file = ioctl(p->vm, KVM_CREATE_GUEST_MEMFD, &create);
    if (p->file < 0) {
        return false;
    }
    p->memory = mmap(NULL, p->memory_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                     p->file, 0);
    if (p->memory == MAP_FAILED) {
        return false;
    }
    memcpy(p->memory, guest_code, sizeof(guest_code));
    region.userspace_addr = (uintptr_t)p->memory;
    region.guest_memfd = p->file;
    return ioctl(p->vm, KVM_SET_USER_MEMORY_REGION2, &region) == 0;
}

/*
 * The thread has all signals blocked; in the guest, all but SIG_IPI are.  So
 * the signal ends KVM_RUN, and is never delivered.
 */
static bool set_signal_mask(int cpu)
{
    g_autofree struct kvm_signal_mask *mask = g_malloc0(sizeof(*mask) + 8);
    sigset_t set;

    sigfillset(&set);
    sigdelset(&set, SIG_IPI);
    mask->len = 8;
    memcpy(mask->sigset, &set, 8);
    return ioctl(cpu, KVM_SET_SIGNAL_MASK, mask) == 0;
}

static bool make_guest(Probe *p)
{
    int ipa = MAX(kvm_ioctl(kvm_state, KVM_CHECK_EXTENSION,
                            KVM_CAP_ARM_VM_IPA_SIZE), 0);
    const size_t x = offsetof(struct kvm_regs, regs.regs);
    struct kvm_vcpu_init init = {};

    p->vm = kvm_ioctl(kvm_state, KVM_CREATE_VM, KVM_VM_TYPE_ARM_IPA_SIZE(ipa));
    if (p->vm < 0) {
        errno = -p->vm;
        return false;
    }
    p->cpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
    if (p->cpu < 0) {
        return false;
    }
    p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                  p->cpu, 0);
    return p->run != MAP_FAILED &&
           ioctl(p->vm, KVM_ARM_PREFERRED_TARGET, &init) == 0 &&
           ioctl(p->cpu, KVM_ARM_VCPU_INIT, &init) == 0 &&
           bind_memory(p) && set_signal_mask(p->cpu) &&
           set_register(p->cpu, x, INSTRUCTION_RET) &&
           set_register(p->cpu, x + 8,
                        GUEST_BASE + qemu_real_host_page_size()) &&
           set_register(p->cpu, x + 16, GUEST_MMIO) &&
           set_register(p->cpu, offsetof(struct kvm_regs, regs.pc),
                        GUEST_BASE);
}

static void *run_guest(void *opaque)
{
    Probe *p = opaque;

    p->ret = ioctl(p->cpu, KVM_RUN, 0) < 0 ? -errno : 0;
    qemu_sem_post(&p->done);
    return NULL;
}

/* Returns: how long the guest ran, in milliseconds of its thread */
static int64_t run_thread(Probe *p)
{
    struct timespec used = {};
    QemuThread thread;
    clockid_t clock;
    bool done = false;

    qemu_sem_init(&p->done, 0);
    qemu_thread_create(&thread, "gmem-probe", run_guest, p,
                       QEMU_THREAD_JOINABLE);
    pthread_getcpuclockid(thread.thread, &clock);
    for (int ms = 0; !done && ms < PROBE_MS &&
         used.tv_sec * 1000 + used.tv_nsec / 1000000 < PROBE_CPU_MS; ms += 20) {
        done = qemu_sem_timedwait(&p->done, 20) == 0;
        if (!done) {
            clock_gettime(clock, &used);
        }
    }
    while (!done) {
        pthread_kill(thread.thread, SIG_IPI);
        done = qemu_sem_timedwait(&p->done, 20) == 0;
    }
    qemu_thread_join(&thread);
    qemu_sem_destroy(&p->done);
    return used.tv_sec * 1000 + used.tv_nsec / 1000000;
}

static void destroy_guest(Probe *p)
{
    if (p->run != MAP_FAILED) {
        munmap(p->run, p->run_size);
    }
    if (p->memory != MAP_FAILED) {
        munmap(p->memory, p->memory_size);
    }
    for (int i = 0; i < 3; i++) {
        int fd = i == 0 ? p->file : i == 1 ? p->cpu : p->vm;

        if (fd >= 0) {
            close(fd);
        }
    }
}

static bool probe(Error **errp)
{
    Probe p = {
        .vm = -1, .cpu = -1, .file = -1,
        .memory = MAP_FAILED,
        .memory_size = 2 * qemu_real_host_page_size(),
        .run = MAP_FAILED,
        .run_size = MAX(kvm_ioctl(kvm_state, KVM_GET_VCPU_MMAP_SIZE, 0), 0),
    };
    bool good = false;

    if (!make_guest(&p)) {
        error_setg_errno(errp, errno, "it cannot be found out whether a guest"
                         " hangs on this kernel when it executes memory that"
                         " it wrote, as KVM runs no guest that could try it");
    } else if (run_thread(&p) >= PROBE_CPU_MS) {
        error_setg(errp, "on this kernel a guest hangs when it executes memory"
                   " that it wrote to a bound guest_memfd");
    } else if (p.ret) {
        error_setg_errno(errp, -p.ret, "it cannot be found out whether a guest"
                         " hangs on this kernel when it executes memory that"
                         " it wrote, as KVM_RUN failed");
    } else if (p.run->exit_reason != KVM_EXIT_MMIO ||
               p.run->mmio.phys_addr != GUEST_MMIO) {
        error_setg(errp, "it cannot be found out whether a guest hangs on this"
                   " kernel when it executes memory that it wrote: the"
                   " one that tried it ended with exit reason %u",
                   p.run->exit_reason);
    } else {
        good = true;
    }
    destroy_guest(&p);
    return good;
}

bool kvm_arm_gmem_probe_execute(Error **errp)
{
    static Error *why_not;
    static bool asked;

    if (!asked) {
        probe(&why_not);
        asked = true;
    }
    if (why_not) {
        error_propagate(errp, error_copy(why_not));
    }
    return !why_not;
}
