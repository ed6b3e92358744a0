/*
 * Make the kernel refuse: an LD_PRELOAD library for tests of error paths
 *
 * The file that GUEST_MEMFD_FAULT names is read at each call, so that a test
 * can change its mind while QEMU runs.  It holds words of the form CALL=ERRNO
 * (a number; for caps, the value to return):
 *
 *   cap      KVM_CHECK_EXTENSION(KVM_CAP_GUEST_MEMFD)
 *   flags    KVM_CHECK_EXTENSION(KVM_CAP_GUEST_MEMFD_FLAGS)
 *   slots    KVM_CHECK_EXTENSION(KVM_CAP_NR_MEMSLOTS)
 *   protect  KVM_CHECK_EXTENSION(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
 *   create   KVM_CREATE_GUEST_MEMFD
 *   bind     KVM_SET_USER_MEMORY_REGION2 of guest_memfd RAM, a bound slot
 *   log      ... of a slot with dirty logging
 *   hva      ... of any other slot
 *   delete   ... with size 0
 *   uffd     UFFDIO_REGISTER; 0 lets it succeed without doing anything
 *   fallocate  fallocate
 *   run      KVM_RUN, once, with KVM_EXIT_MEMORY_FAULT at the address that the
 *            word gpa=N gives, and with the flags of attributes=N
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/userfaultfd.h>
#include <linux/kvm.h>

static bool fault(const char *call, int *value)
{
    const char *path = getenv("GUEST_MEMFD_FAULT");
    FILE *f = path ? fopen(path, "re") : NULL;
    char word[64];
    bool found = false;

    while (f && !found && fscanf(f, "%63s", word) == 1) {
        size_t n = strlen(call);

        if (!strncmp(word, call, n) && word[n] == '=') {
            found = sscanf(word + n + 1, "%i", value) == 1;
        }
    }
    if (f) {
        fclose(f);
    }
    return found;
}

static int fail(int err)
{
    errno = err;
    return err ? -1 : 0;
}

static const char *region_call(const struct kvm_userspace_memory_region2 *r)
{
    return !r->memory_size ? "delete"
         : r->flags & KVM_MEM_GUEST_MEMFD ? "bind"
         : r->flags & KVM_MEM_LOG_DIRTY_PAGES ? "log" : "hva";
}

/*
 * QEMU names a file only in slots of guest_memfd RAM, bound or not.  One of two
 * pages is no RAM, but that of the VM with which QEMU tries an arm64 kernel.
 */
static bool names_file(const struct kvm_userspace_memory_region2 *r)
{
    return (int)r->guest_memfd >= 0 &&
           r->memory_size != 2 * sysconf(_SC_PAGE_SIZE);
}

/* The vCPUs' struct kvm_run, by file descriptor */
static struct kvm_run *vcpu_run[1024];

/* mmap64 to the linker, since off_t has 64 bits */
void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    void *ret;

    if (!real) {
        real = dlsym(RTLD_NEXT, "mmap64");
    }
    ret = real(addr, len, prot, flags, fd, offset);
    if (ret != MAP_FAILED && fd >= 0 && fd < 1024 && !offset) {
        vcpu_run[fd] = ret;
    }
    return ret;
}

static bool fault_run(int fd, int *err)
{
    static bool done;
    int gpa, flags = 0;

    if (done || !fault("run", err) || !fault("gpa", &gpa)) {
        return false;
    }
    done = true;
    fault("attributes", &flags);
    vcpu_run[fd]->exit_reason = KVM_EXIT_MEMORY_FAULT;
    vcpu_run[fd]->memory_fault.flags = flags;
    vcpu_run[fd]->memory_fault.gpa = gpa;
    vcpu_run[fd]->memory_fault.size = 4096;
    return true;
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, void *);
    va_list ap;
    void *arg;
    int value;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (!real) {
        real = dlsym(RTLD_NEXT, "ioctl");
    }

    switch (request) {
    case KVM_CHECK_EXTENSION:
        if ((arg == (void *)KVM_CAP_GUEST_MEMFD && fault("cap", &value)) ||
            (arg == (void *)KVM_CAP_GUEST_MEMFD_FLAGS &&
             fault("flags", &value)) ||
            (arg == (void *)KVM_CAP_NR_MEMSLOTS && fault("slots", &value)) ||
            (arg == (void *)KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 &&
             fault("protect", &value))) {
            return value;
        }
        break;
    case KVM_CREATE_GUEST_MEMFD:
        if (fault("create", &value)) {
            return fail(value);
        }
        break;
    case KVM_SET_USER_MEMORY_REGION2:
        if (names_file(arg) && fault(region_call(arg), &value)) {
            return fail(value);
        }
        break;
    case KVM_RUN:
        if (fault_run(fd, &value)) {
            return fail(value);
        }
        break;
    case UFFDIO_REGISTER:
        if (fault("uffd", &value)) {
            return fail(value);
        }
        break;
    }
    return real(fd, request, arg);
}

/* fallocate64 to the linker, since off_t has 64 bits */
int fallocate(int fd, int mode, off_t offset, off_t len)
{
    static int (*real)(int, int, off_t, off_t);
    int value;

    if (!real) {
        real = dlsym(RTLD_NEXT, "fallocate64");
    }
    return fault("fallocate", &value) ? fail(value)
                                      : real(fd, mode, offset, len);
}
