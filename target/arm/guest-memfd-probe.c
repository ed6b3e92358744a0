/*
 * Does this arm64 kernel let a guest execute what it wrote to a guest_memfd?
 *
 * Linux 6.18 to 7.0, on CPUs without CTR_EL0.DIC, never makes a page of a
 * bound memslot executable that was first touched as data: the guest faults
 * on it for ever ("KVM: arm64: Handle permission faults with guest_memfd",
 * Linux 7.1, mended that).  No capability or version tells the kernels apart,
 * since the fix may be backported, so we ask by behaviour.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <linux/kvm.h>
#include "system/guest-memfd.h"

#define GUEST_BASE 0x80000000ULL
#define GUEST_MMIO 0x10000000ULL

/* A good kernel needs 2 ms; an emulated or busy one has this long */
#define PROBE_SECONDS 2

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
static bool bind_memory(int vm)
{
    size_t size = 2 * qemu_real_host_page_size();
    struct kvm_create_guest_memfd create = {
        .size = size,
        .flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
    };
    int fd = ioctl(vm, KVM_CREATE_GUEST_MEMFD, &create);
    void *host = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE,
                                            MAP_SHARED, fd, 0);
    struct kvm_userspace_memory_region2 region = {
        .flags = KVM_MEM_GUEST_MEMFD,
        .guest_phys_addr = GUEST_BASE,
        .memory_size = size,
        .userspace_addr = (uintptr_t)host,
        .guest_memfd = fd,
    };

    if (host == MAP_FAILED) {
        return false;
    }
    memcpy(host, guest_code, sizeof(guest_code));
    return ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region) == 0;
}

/* In the child; returns unless the kernel has the bug */
static void run_guest(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int ipa = MAX(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE), 0);
    int vm = ioctl(kvm, KVM_CREATE_VM, KVM_VM_TYPE_ARM_IPA_SIZE(ipa));
    int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    struct kvm_vcpu_init init = {};
    const size_t x = offsetof(struct kvm_regs, regs.regs);

    if (cpu < 0 || ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) ||
        ioctl(cpu, KVM_ARM_VCPU_INIT, &init) || !bind_memory(vm) ||
        !set_register(cpu, x, INSTRUCTION_RET) ||
        !set_register(cpu, x + 8,
                      GUEST_BASE + qemu_real_host_page_size()) ||
        !set_register(cpu, x + 16, GUEST_MMIO) ||
        !set_register(cpu, offsetof(struct kvm_regs, regs.pc), GUEST_BASE)) {
        return;
    }
    ioctl(cpu, KVM_RUN, 0);
}

static bool probe(void)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        sigset_t set;

        /* The default action of the alarm ends a child that hangs in KVM_RUN */
        signal(SIGALRM, SIG_DFL);
        sigemptyset(&set);
        sigaddset(&set, SIGALRM);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        alarm(PROBE_SECONDS);
        run_guest();
        _exit(0);
    }
    return child > 0 && RETRY_ON_EINTR(waitpid(child, &status, 0)) == child &&
           WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
}

bool kvm_arm_guest_memfd_hangs(void)
{
    static int hangs = -1;

    if (hangs < 0) {
        hangs = probe();
    }
    return hangs;
}
