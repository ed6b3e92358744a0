/*
 * Make the kernel refuse: an LD_PRELOAD library for tests of error paths
 *
 * The file that GUEST_MEMFD_FAULT names (fault.h) is mapped, so that a test
 * can change its mind while QEMU runs, and read how often each call was made.
 * It holds words, each with a number: an errno; for cap, flags, slots and
 * protect, the value to return.
 *
 *   CALL=ERRNO         each such call fails
 *   CALL@3=ERRNO       the third does, counted from when the words came
 *   CALL@3,5=ERRNO     the third and the fifth do
 *   CALL@3+=ERRNO      all do from the third on
 *
 * Calls count that concern a guest_memfd, a mapping of one, or a memslot that
 * shows one; of the first three, all.
 *
 *   vm         KVM_CREATE_VM
 *   vcpu       KVM_CREATE_VCPU
 *   initvcpu   KVM_ARM_VCPU_INIT
 *   cap        KVM_CHECK_EXTENSION(KVM_CAP_GUEST_MEMFD)
 *   flags      KVM_CHECK_EXTENSION(KVM_CAP_GUEST_MEMFD_FLAGS)
 *   slots      KVM_CHECK_EXTENSION(KVM_CAP_NR_MEMSLOTS)
 *   protect    KVM_CHECK_EXTENSION(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
 *   ext        KVM_CHECK_EXTENSION of what is asked for guest_memfds
 *   enable     KVM_ENABLE_CAP of KVM_CAP_DISABLE_QUIRKS2
 *   create     KVM_CREATE_GUEST_MEMFD
 *   bind       KVM_SET_USER_MEMORY_REGION2 of guest_memfd RAM, a bound slot
 *   log        ... of a slot with dirty logging
 *   hva        ... of any other slot
 *   delete     ... with size 0
 *   getlog     KVM_GET_DIRTY_LOG
 *   clearlog   KVM_CLEAR_DIRTY_LOG
 *   resetrings KVM_RESET_DIRTY_RINGS
 *   prefault   KVM_PRE_FAULT_MEMORY
 *   run        KVM_RUN, with KVM_EXIT_MEMORY_FAULT at the address that the
 *              word gpa=N gives, and with the flags of attributes=N
 *   uffd       UFFDIO_REGISTER; 0 lets it succeed without doing anything
 *   mmap, madvise, mincore, mbind, fstat
 *   fallocate  fallocate; punch, if it makes a hole
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <linux/kvm.h>
#include "fault.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* What is known of files and memory, for calls from any thread */
#define MAX_FDS 4096
#define MAX_MAPPINGS 64
static bool is_gmem_fd[MAX_FDS];
static struct { char *start, *end; } mapping[MAX_MAPPINGS];
static bool is_gmem_slot[1 << 17];      /* bit 16: the address space */
static struct kvm_run *vcpu_run[MAX_FDS];

static FaultFile *faults;

static void __attribute__((constructor)) map_faults(void)
{
    void *(*real)(void *, size_t, int, int, int, off_t);
    const char *path = getenv("GUEST_MEMFD_FAULT");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    real = dlsym(RTLD_NEXT, "mmap64");
    if (fd >= 0 && !ftruncate(fd, FAULT_FILE_SIZE)) {
        faults = real(NULL, FAULT_FILE_SIZE, PROT_READ | PROT_WRITE,
                      MAP_SHARED, fd, 0);
        faults = faults == MAP_FAILED ? NULL : faults;
    }
    if (fd >= 0) {
        close(fd);
    }
}

static bool has_fd(const bool *table, int fd)
{
    return fd >= 0 && fd < MAX_FDS && table[fd];
}

/* The number behind NAME= */
static bool find_number(const char *name, int *value)
{
    size_t n = strlen(name);

    for (const char *word = faults ? faults->words : ""; *word; word++) {
        if ((word == faults->words || word[-1] == ' ') &&
            !strncmp(word, name, n) && word[n] == '=') {
            return sscanf(word + n + 1, "%i", value) == 1;
        }
    }
    return false;
}

/* Does the call number @n meet what follows its name in a word? */
static bool meets(const char *at, uint64_t n, const char **end)
{
    bool met = *at == '=';

    while (*at == '@' || *at == ',') {
        long long wanted;
        int len;

        if (sscanf(at + 1, "%lli%n", &wanted, &len) != 1) {
            break;
        }
        at += 1 + len;
        met |= *at == '+' ? n >= wanted : n == wanted;
        at += *at == '+';
    }
    *end = at + 1;
    return met && *at == '=';
}

static bool fault(FaultKind kind, int *value)
{
    const char *name = fault_names[kind];
    size_t len = strlen(name);
    uint64_t n;

    if (!faults) {
        return false;
    }
    n = __atomic_add_fetch(&faults->calls[kind], 1, __ATOMIC_SEQ_CST);
    for (const char *word = faults->words; *word; word++) {
        const char *number;

        if ((word == faults->words || word[-1] == ' ') &&
            !strncmp(word, name, len) && meets(word + len, n, &number)) {
            sscanf(number, "%i", value);
            __atomic_add_fetch(&faults->failed, 1, __ATOMIC_SEQ_CST);
            return true;
        }
    }
    return false;
}

static int fail(int err)
{
    errno = err;
    return err ? -1 : 0;
}

static FaultKind region_kind(const struct kvm_userspace_memory_region2 *r)
{
    return !r->memory_size ? FAULT_delete
         : r->flags & KVM_MEM_GUEST_MEMFD ? FAULT_bind
         : r->flags & KVM_MEM_LOG_DIRTY_PAGES ? FAULT_log : FAULT_hva;
}

/*
 * QEMU names a file only in slots of guest_memfd RAM, bound or not.  One of two
 * pages is no RAM, but that of the VM with which QEMU tries an arm64 kernel.
 */
static bool names_file(const struct kvm_userspace_memory_region2 *r)
{
    bool ours = (int)r->guest_memfd >= 0 &&
                r->memory_size != 2 * sysconf(_SC_PAGE_SIZE);

    is_gmem_slot[r->slot % ARRAY_SIZE(is_gmem_slot)] = ours;
    return ours;
}

static bool is_slot(uint32_t slot)
{
    return is_gmem_slot[slot % ARRAY_SIZE(is_gmem_slot)];
}

static void remember_mapping(char *start, size_t len)
{
    for (int i = 0; i < MAX_MAPPINGS; i++) {
        char *none = NULL;

        if (__atomic_compare_exchange_n(&mapping[i].start, &none, start, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            mapping[i].end = start + len;
            return;
        }
    }
}

static bool is_mapping(const char *addr)
{
    for (int i = 0; i < MAX_MAPPINGS; i++) {
        if (addr >= mapping[i].start && addr < mapping[i].end) {
            return true;
        }
    }
    return false;
}

/* mmap64 to the linker, since off_t has 64 bits; so with others below */
void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
    void *(*real)(void *, size_t, int, int, int, off_t);
    bool ours = has_fd(is_gmem_fd, fd);
    void *ret;
    int value;

    real = dlsym(RTLD_NEXT, "mmap64");
    if (ours && fault(FAULT_mmap, &value)) {
        errno = value;
        return MAP_FAILED;
    }
    ret = real(addr, len, prot, flags, fd, offset);
    if (ret != MAP_FAILED && ours) {
        remember_mapping(ret, len);
    } else if (ret != MAP_FAILED && fd >= 0 && fd < MAX_FDS && !offset) {
        vcpu_run[fd] = ret;
    }
    return ret;
}

int munmap(void *addr, size_t len)
{
    int (*real)(void *, size_t);

    real = dlsym(RTLD_NEXT, "munmap");
    for (int i = 0; i < MAX_MAPPINGS; i++) {
        if (mapping[i].start >= (char *)addr &&
            mapping[i].start < (char *)addr + len) {
            mapping[i].end = NULL;
            mapping[i].start = NULL;
        }
    }
    return real(addr, len);
}

int close(int fd)
{
    int (*real)(int);

    real = dlsym(RTLD_NEXT, "close");
    if (has_fd(is_gmem_fd, fd)) {
        is_gmem_fd[fd] = false;
    }
    return real(fd);
}

static bool fault_run(int fd, int *err)
{
    int gpa, flags = 0;

    if (!fault(FAULT_run, err) || !find_number("gpa", &gpa)) {
        return false;
    }
    vcpu_run[fd]->exit_reason = KVM_EXIT_MEMORY_FAULT;
    find_number("attributes", &flags);
    vcpu_run[fd]->memory_fault.flags = flags;
    vcpu_run[fd]->memory_fault.gpa = gpa;
    vcpu_run[fd]->memory_fault.size = 4096;
    return true;
}

static bool is_asked_for_gmem(long cap)
{
    return cap == KVM_CAP_GUEST_MEMFD || cap == KVM_CAP_GUEST_MEMFD_FLAGS ||
           cap == KVM_CAP_USER_MEMORY2 || cap == KVM_CAP_PRE_FAULT_MEMORY ||
           cap == KVM_CAP_DISABLE_QUIRKS2;
}

static bool fault_extension(long cap, int *value)
{
    return (cap == KVM_CAP_GUEST_MEMFD && fault(FAULT_cap, value)) ||
           (cap == KVM_CAP_GUEST_MEMFD_FLAGS && fault(FAULT_flags, value)) ||
           (cap == KVM_CAP_NR_MEMSLOTS && find_number("slots", value)) ||
           (cap == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 &&
            find_number("protect", value));
}

static bool fault_ioctl(unsigned long request, void *arg, int *value)
{
    switch (request) {
    case KVM_CREATE_VM:
        return fault(FAULT_vm, value);
    case KVM_CREATE_VCPU:
        return fault(FAULT_vcpu, value);
#ifdef __aarch64__
    case KVM_ARM_VCPU_INIT:
        return fault(FAULT_initvcpu, value);
#endif
    case KVM_CHECK_EXTENSION:
        return is_asked_for_gmem((long)arg) && fault(FAULT_ext, value);
    case KVM_ENABLE_CAP:
        return ((struct kvm_enable_cap *)arg)->cap == KVM_CAP_DISABLE_QUIRKS2 &&
               fault(FAULT_enable, value);
    case KVM_CREATE_GUEST_MEMFD:
        return fault(FAULT_create, value);
    case KVM_SET_USER_MEMORY_REGION:
        is_gmem_slot[((struct kvm_userspace_memory_region *)arg)->slot %
                     ARRAY_SIZE(is_gmem_slot)] = false;
        return false;
    case KVM_SET_USER_MEMORY_REGION2:
        return names_file(arg) && fault(region_kind(arg), value);
    case KVM_GET_DIRTY_LOG:
        return is_slot(((struct kvm_dirty_log *)arg)->slot) &&
               fault(FAULT_getlog, value);
    case KVM_CLEAR_DIRTY_LOG:
        return is_slot(((struct kvm_clear_dirty_log *)arg)->slot) &&
               fault(FAULT_clearlog, value);
    case KVM_RESET_DIRTY_RINGS:
        return fault(FAULT_resetrings, value);
    case KVM_PRE_FAULT_MEMORY:
        return fault(FAULT_prefault, value);
    case UFFDIO_REGISTER:
        return fault(FAULT_uffd, value);
    }
    return false;
}

int ioctl(int fd, unsigned long request, ...)
{
    int (*real)(int, unsigned long, void *);
    va_list ap;
    void *arg;
    int value, ret;

    real = dlsym(RTLD_NEXT, "ioctl");
    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);

    if (request == KVM_CHECK_EXTENSION && fault_extension((long)arg, &value)) {
        return value;
    }
    if ((request == KVM_RUN && fault_run(fd, &value)) ||
        fault_ioctl(request, arg, &value)) {
        return fail(value);
    }
    ret = real(fd, request, arg);
    if (request == KVM_CREATE_GUEST_MEMFD && ret >= 0 && ret < MAX_FDS) {
        is_gmem_fd[ret] = true;
    }
    return ret;
}

int madvise(void *addr, size_t len, int advice)
{
    int (*real)(void *, size_t, int);
    int value;

    real = dlsym(RTLD_NEXT, "madvise");
    return is_mapping(addr) && fault(FAULT_madvise, &value)
           ? fail(value) : real(addr, len, advice);
}

int mincore(void *addr, size_t len, unsigned char *vec)
{
    int (*real)(void *, size_t, unsigned char *);
    int value;

    real = dlsym(RTLD_NEXT, "mincore");
    return is_mapping(addr) && fault(FAULT_mincore, &value)
           ? fail(value) : real(addr, len, vec);
}

/* libnuma's, whose header need not be there */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
long mbind(void *addr, unsigned long len, int mode, const unsigned long *mask,
           unsigned long max, unsigned flags)
{
    long (*real)(void *, unsigned long, int, const unsigned long *,
                        unsigned long, unsigned);
    int value;

    real = dlsym(RTLD_NEXT, "mbind");
    return is_mapping(addr) && fault(FAULT_mbind, &value)
           ? fail(value) : real(addr, len, mode, mask, max, flags);
}

int fstat(int fd, struct stat *st)
{
    int (*real)(int, struct stat *);
    int value;

    real = dlsym(RTLD_NEXT, "fstat64");
    return has_fd(is_gmem_fd, fd) && fault(FAULT_fstat, &value)
           ? fail(value) : real(fd, st);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    int (*real)(int, int, off_t, off_t);
    FaultKind kind = mode & FALLOC_FL_PUNCH_HOLE ? FAULT_punch
                                                 : FAULT_fallocate;
    int value;

    real = dlsym(RTLD_NEXT, "fallocate64");
    return fault(kind, &value) ? fail(value) : real(fd, mode, offset, len);
}
