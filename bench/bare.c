/*
 * What the kernel itself needs for what QEMU asks of it: one operation, timed
 *
 *   bare fallocate SIZE THREADS   the pages of a guest_memfd
 *   bare allocmap SIZE THREADS    the same, and the host's page tables
 *   bare populate SIZE THREADS    the pages and page tables of a memfd
 *   bare release SIZE THREADS     giving a guest_memfd's pages back
 *   bare walk SIZE ACCESSES       reading words here and there, as the guest
 *                                 program does, from memory in 4 KiB pages
 *   bare slots SIZE TIMES         deleting a memslot and creating it
 *   bare exec SIZE TIMES          starting a program that ends at once
 *
 * Prints seconds: of all of it, or for one of the accesses or times.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/kvm.h>

/* Headers of older kernels have none of these */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
struct create_guest_memfd {
    uint64_t size;
    uint64_t flags;
    uint64_t reserved[6];
};
#define CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
#define FLAGS_MMAP_SHARED 3
struct region2 {
    uint32_t slot;
    uint32_t flags;
    uint64_t gpa, size, userspace_addr, guest_memfd_offset;
    uint32_t guest_memfd;
    uint32_t pad1;
    uint64_t pad2[14];
};
#define SET_REGION2 _IOW(KVMIO, 0x49, struct region2)
#define MEM_GUEST_MEMFD 4

static struct job {
    int fd;
    char *map;          /* to be populated, or NULL */
    bool allocate;
    size_t size;
    unsigned threads;
} job;

/* volatile: the accesses are what is measured */
static inline uint64_t load(char *p)
{
    return *(volatile uint64_t *)p; /* see above */
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int create_vm(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0UL);

    if (vm < 0) {
        err(1, "KVM");
    }
    return vm;
}

static int create_guest_memfd(int vm, size_t size)
{
    struct create_guest_memfd args = {
        .size = size, .flags = FLAGS_MMAP_SHARED,
    };
    int fd = ioctl(vm, CREATE_GUEST_MEMFD, &args);

    if (fd < 0) {
        err(1, "KVM_CREATE_GUEST_MEMFD");
    }
    return fd;
}

static char *map(int fd, size_t size)
{
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED) {
        err(1, "mmap");
    }
    return p;
}

static void *work(void *opaque)
{
    size_t pages = job.size / 4096;
    size_t i = (size_t)(uintptr_t)opaque;
    size_t start = pages * i / job.threads * 4096;
    size_t len = pages * (i + 1) / job.threads * 4096 - start;

    if (job.allocate && fallocate(job.fd, FALLOC_FL_KEEP_SIZE, start, len)) {
        err(1, "fallocate");
    }
    if (job.map && madvise(job.map + start, len, MADV_POPULATE_WRITE)) {
        err(1, "MADV_POPULATE_WRITE");
    }
    return NULL;
}

static void in_threads(void)
{
    pthread_t thread[job.threads];

    for (unsigned i = 0; i < job.threads; i++) {
        if (pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)i)) {
            errx(1, "no thread");
        }
    }
    for (unsigned i = 0; i < job.threads; i++) {
        pthread_join(thread[i], NULL);
    }
}

static double allocate(const char *op)
{
    double start;

    if (!strcmp(op, "populate")) {
        job.fd = memfd_create("bare", MFD_CLOEXEC);
        if (job.fd < 0 || ftruncate(job.fd, job.size)) {
            err(1, "memfd");
        }
    } else {
        job.fd = create_guest_memfd(create_vm(), job.size);
        job.allocate = true;
    }
    if (strcmp(op, "fallocate")) {
        job.map = map(job.fd, job.size);
    }
    start = now();
    in_threads();
    return now() - start;
}

static double release(void)
{
    double start;

    allocate("fallocate");
    start = now();
    close(job.fd);
    return now() - start;
}

/* As random_walk() in tests/guest-memfd/memory.c */
static double walk(uint64_t accesses)
{
    char *p = mmap(NULL, job.size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t words = job.size / 8;
    uint64_t x = 1;
    double start;

    if (p == MAP_FAILED || madvise(p, job.size, MADV_NOHUGEPAGE)) {
        err(1, "memory");
    }
    for (size_t i = 0; i < job.size; i += 4096) {
        memset(p + i, 1, 8);
    }
    start = now();
    for (uint64_t i = 0; i < accesses; i++) {
        x = x * 6364136223846793005ULL + 1442695040888963407ULL;
        x += load(p + ((x >> 32) * words >> 32) * 8);
    }
    return (now() - start) / accesses;
}

static double slots(unsigned times)
{
    int vm = create_vm();
    int fd = create_guest_memfd(vm, job.size);
    struct region2 region = {
        .flags = MEM_GUEST_MEMFD, .size = job.size, .guest_memfd = fd,
        .userspace_addr = (uintptr_t)map(fd, job.size),
    };
    double start = now();

    for (unsigned i = 0; i < times; i++) {
        region.size = job.size;
        if (ioctl(vm, SET_REGION2, &region)) {
            err(1, "KVM_SET_USER_MEMORY_REGION2");
        }
        region.size = 0;
        if (ioctl(vm, SET_REGION2, &region)) {
            err(1, "KVM_SET_USER_MEMORY_REGION2");
        }
    }
    return (now() - start) / times;
}

static double exec(unsigned times)
{
    char *argv[] = { (char *)"true", NULL };
    double start = now();

    for (unsigned i = 0; i < times; i++) {
        pid_t pid;

        if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, NULL) ||
            waitpid(pid, NULL, 0) < 0) {
            errx(1, "cannot run true");
        }
    }
    return (now() - start) / times;
}

int main(int argc, char **argv)
{
    uint64_t n = argc == 4 ? strtoull(argv[3], NULL, 0) : 0;
    const char *op = argc == 4 ? argv[1] : "";
    double seconds;

    job.size = argc == 4 ? strtoull(argv[2], NULL, 0) : 0;
    job.threads = n;
    if (!n || !job.size || job.size % 4096) {
        errx(2, "usage: bare OPERATION SIZE NUMBER");
    }
    if (!strcmp(op, "release")) {
        seconds = release();
    } else if (!strcmp(op, "walk")) {
        seconds = walk(n);
    } else if (!strcmp(op, "slots")) {
        seconds = slots(n);
    } else if (!strcmp(op, "exec")) {
        seconds = exec(n);
    } else if (!strcmp(op, "fallocate") || !strcmp(op, "allocmap") ||
               !strcmp(op, "populate")) {
        seconds = allocate(op);
    } else {
        errx(2, "there is no operation %s", op);
    }
    printf("%.9f\n", seconds);
    return 0;
}
