/*
 * The file behind guest_memfd RAM, as the host sees it from outside QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "file.h"

/* Take QEMU's descriptor, which cannot be opened by its link in /proc */
static int take_fd(VM *vm, uint64_t size)
{
    g_autoptr(GArray) fds = vm_list_fds(vm, VM_GMEM_LINK);
    int process = syscall(SYS_pidfd_open, qtest_pid(vm->qts), 0);
    int found = -1;

    g_assert_cmpint(process, >=, 0);
    for (int i = 0; found < 0 && i < fds->len; i++) {
        int fd = syscall(SYS_pidfd_getfd, process, g_array_index(fds, int, i),
                         0);
        struct stat st;

        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(fstat(fd, &st), ==, 0);
        if (st.st_size == size) {
            found = fd;
        } else {
            close(fd);
        }
    }
    close(process);
    return found;
}

GmemFile *gmem_file_open(VM *vm, uint64_t size)
{
    GmemFile *file = g_new0(GmemFile, 1);

    file->size = size;
    file->fd = take_fd(vm, size);
    g_assert_cmpint(file->fd, >=, 0);
    file->map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
                     file->fd, 0);
    g_assert(file->map != MAP_FAILED);
    return file;
}

void gmem_file_close(GmemFile *file)
{
    munmap(file->map, file->size);
    close(file->fd);
    g_free(file);
}

uint64_t gmem_file_resident(GmemFile *file, uint64_t offset, uint64_t len)
{
    size_t page_size = qemu_real_host_page_size();
    size_t pages = len / page_size, n = 0;
    g_autofree unsigned char *present = g_malloc(pages);

    g_assert_cmpint(mincore(file->map + offset, len, present), ==, 0);
    for (size_t i = 0; i < pages; i++) {
        n += present[i] & 1;
    }
    return n * page_size;
}

void gmem_file_assert_zero(GmemFile *file, uint64_t offset, uint64_t len)
{
    g_assert_true(buffer_is_zero(file->map + offset, len));
}

int64_t unevictable(void)
{
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents("/proc/meminfo", &text, NULL, NULL));
    return g_ascii_strtoll(strstr(text, "Unevictable:") + 12, NULL, 0) * KiB;
}

void wait_unevictable(int64_t before, int64_t bytes)
{
    if (bytes < 0) {
        VM_WAIT(unevictable() - before < bytes / 2);
    } else {
        VM_WAIT(unevictable() - before > bytes / 2);
    }
}

uint64_t gmem_smaps(VM *vm, const char *field)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/smaps",
                                            (int)qtest_pid(vm->qts));
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    bool ours = false, seen = false;
    uint64_t sum = 0;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    lines = g_strsplit(text, "\n", 0);
    for (char **line = lines; *line; line++) {
        if (g_ascii_isxdigit(**line) && !g_ascii_isupper(**line)) {
            ours = strstr(*line, VM_GMEM_LINK);
        } else if (ours && g_str_has_prefix(*line, field)) {
            sum += g_ascii_strtoull(*line + strlen(field) + 1, NULL, 0) * KiB;
            seen = true;
        }
    }
    g_assert_true(seen);
    return sum;
}
