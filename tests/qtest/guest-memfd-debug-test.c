/*
 * Looking into guest_memfd RAM from outside: dumps, monitor, gdb
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <elf.h>
#include <poll.h>
#include "qemu/bswap.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "guest-memfd/vm.h"
#include "../guest-memfd/pattern.h"

#define AT      (48 * MiB)      /* where the pattern is */
#define LEN     (4 * MiB)
#define SEED    31

static char *tmp;

static VM *start(const char *machine, const char *extra)
{
    VM *vm = vm_start("-machine %s,memory-backend=ram0 -m " VM_RAM " "
                      VM_BACKEND " %s", machine, extra);

    vm_wait_ready(vm);
    vm_fill_range(vm, AT, LEN, SEED);
    return vm;
}

static void assert_pattern(const char *data, uint64_t start, uint64_t len)
{
    for (uint64_t at = 0; at < len; at += 8) {
        g_assert_cmphex(ldq_he_p(data + at), ==,
                        guest_memfd_pattern(start + at, SEED));
    }
}

/* Dump, with the guest at work before and after */
static char *dump(VM *vm, const char *format)
{
    char *path = g_strdup_printf("%s/dump", tmp);
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    vm_start_count(vm, 1, 64 * MiB, 32 * MiB);
    qtest_qmp_assert_success(vm->qts, "{'execute': 'dump-guest-memory',"
                             "'arguments': {'paging': false, 'protocol': %s,"
                             "'format': %s}}", uri, format);
    vm_stop_count(vm);
    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    return path;
}

/* The file has the pattern where its program header says */
static void test_dump_elf(const void *machine)
{
    VM *vm = start(machine, "");
    g_autofree char *path = dump(vm, "elf");
    g_autofree char *text = NULL;
    const Elf64_Ehdr *elf;
    gsize len;
    int found = 0;

    g_assert_true(g_file_get_contents(path, &text, &len, NULL));
    elf = (void *)text;
    g_assert_cmpint(memcmp(text, ELFMAG, SELFMAG), ==, 0);
    g_assert_cmpint(elf->e_type, ==, ET_CORE);
    g_assert_cmpint(len, >=, VM_RAM_SIZE);
    for (int i = 0; i < elf->e_phnum; i++) {
        const Elf64_Phdr *p = (void *)(text + elf->e_phoff +
                                       i * elf->e_phentsize);

        if (p->p_type == PT_LOAD && AT >= p->p_paddr &&
            AT + LEN <= p->p_paddr + p->p_filesz) {
            assert_pattern(text + p->p_offset + AT - p->p_paddr, AT, LEN);
            found++;
        }
    }
    g_assert_cmpint(found, ==, 1);
    unlink(path);
    vm_quit(vm);
}

/* Zero pages are left out of it, which shows that RAM was read */
static void test_dump_kdump(const void *machine)
{
    VM *vm = start(machine, "");
    g_autofree char *path = dump(vm, "kdump-zlib");
    g_autofree char *text = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(path, &text, &len, NULL));
    g_assert_cmpint(memcmp(text, "makedumpfile", 12), ==, 0);
    g_assert_nonnull(memmem(text, len, "KDUMP   ", 8));
    g_assert_cmpint(len, >, LEN / 2);
    g_assert_cmpint(len, <, VM_RAM_SIZE / 2);
    unlink(path);
    vm_quit(vm);
}

static void save(VM *vm, const char *command)
{
    g_autofree char *path = g_strdup_printf("%s/save", tmp);
    g_autofree char *text = NULL;
    gsize len;

    qtest_qmp_assert_success(vm->qts, "{'execute': %s, 'arguments': {"
                             "'val': %" PRIu64 ", 'size': %" PRIu64
                             ", 'filename': %s}}", command, AT, LEN, path);
    g_assert_true(g_file_get_contents(path, &text, &len, NULL));
    g_assert_cmpint(len, ==, LEN);
    assert_pattern(text, AT, LEN);
    unlink(path);
}

static void test_save(const void *command)
{
    VM *vm = start("q35", "");

    save(vm, command);
    qtest_qmp_assert_success(vm->qts, "{'execute': 'stop'}");
    save(vm, command);
    vm_quit(vm);
}

static void test_xp(void)
{
    VM *vm = start("q35", "");

    for (uint64_t at = AT; at < AT + LEN; at += LEN / 16) {
        g_autofree char *expect = g_strdup_printf("0x%016" PRIx64,
                                                  guest_memfd_pattern(at,
                                                                      SEED));
        g_autofree char *physical = qtest_hmp(vm->qts, "xp /1gx 0x%" PRIx64,
                                              at);
        g_autofree char *virtual = qtest_hmp(vm->qts, "x /1gx 0x%" PRIx64, at);

        g_assert_nonnull(strstr(physical, expect));
        g_assert_nonnull(strstr(virtual, expect));
    }
    vm_quit(vm);
}

/* gdb's remote protocol: $PACKET#CHECKSUM, and + when it has arrived */

static char gdb_get(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    char c;

    g_assert_cmpint(poll(&pfd, 1, 60 * 1000), ==, 1);
    g_assert_cmpint(read(fd, &c, 1), ==, 1);
    return c;
}

static void gdb_send(int fd, const char *packet)
{
    uint8_t sum = 0;
    g_autofree char *line = NULL;

    for (const char *c = packet; *c; c++) {
        sum += *c;
    }
    line = g_strdup_printf("$%s#%02x", packet, sum);
    g_assert_cmpint(write(fd, line, strlen(line)), ==, strlen(line));
}

static char *gdb_receive(int fd)
{
    GString *packet = g_string_new(NULL);
    char c;

    while (gdb_get(fd) != '$') {
        continue;
    }
    while ((c = gdb_get(fd)) != '#') {
        g_string_append_c(packet, c);
    }
    gdb_get(fd);
    gdb_get(fd);
    g_assert_cmpint(write(fd, "+", 1), ==, 1);
    return g_string_free(packet, false);
}

G_GNUC_PRINTF(2, 3)
static char *gdb(int fd, const char *fmt, ...)
{
    g_autofree char *packet = NULL;
    va_list ap;

    va_start(ap, fmt);
    packet = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    gdb_send(fd, packet);
    return gdb_receive(fd);
}

static uint64_t gdb_read64(int fd, uint64_t addr)
{
    g_autofree char *hex = gdb(fd, "m%" PRIx64 ",8", addr);

    g_assert_cmpint(strlen(hex), ==, 16);
    return bswap64(g_ascii_strtoull(hex, NULL, 16));
}

static void gdb_write64(int fd, uint64_t addr, uint64_t value)
{
    g_autofree char *reply = gdb(fd, "M%" PRIx64 ",8:%016" PRIx64, addr,
                                 bswap64(value));

    g_assert_cmpstr(reply, ==, "OK");
}

static void gdb_stop(int fd)
{
    g_autofree char *why = NULL;

    g_assert_cmpint(write(fd, "\x03", 1), ==, 1);
    why = gdb_receive(fd);
    g_assert_cmpint(why[0], ==, 'T');
}

/* Where gdb connects, the guest stops; it goes on with "c" */
static VM *start_gdb(int *fd)
{
    g_autofree char *path = g_strdup_printf("%s/gdb", tmp);
    g_autofree char *extra = g_strdup_printf(
        "-chardev socket,id=gdb,path=%s,server=on,wait=off -gdb chardev:gdb",
        path);
    VM *vm = start("q35", extra);

    *fd = unix_connect(path, NULL);
    g_assert_cmpint(*fd, >=, 0);
    return vm;
}

static void gdb_detach(int fd)
{
    g_autofree char *reply = gdb(fd, "D");

    g_assert_cmpstr(reply, ==, "OK");
    close(fd);
}

static void test_gdb_memory(void)
{
    const uint64_t at = AT + LEN - 8;
    int fd;
    VM *vm = start_gdb(&fd);
    g_autofree char *why = gdb(fd, "?");

    g_assert_cmpint(why[0], ==, 'T');
    g_assert_cmphex(gdb_read64(fd, at), ==, guest_memfd_pattern(at, SEED));
    gdb_write64(fd, at, 0x1234);
    g_assert_cmphex(gdb_read64(fd, at), ==, 0x1234);
    g_assert_cmphex(qtest_readq(vm->qts, at), ==, 0x1234);
    gdb_detach(fd);
    g_assert_cmphex(vm_read64(vm, at), ==, 0x1234);
    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_quit(vm);
}

/* Any packet stops a guest that runs; what is written then, it finds */
static void test_gdb_running(void)
{
    int fd;
    VM *vm = start_gdb(&fd);

    g_free(gdb(fd, "?"));
    gdb_send(fd, "c");
    vm_start_count(vm, 1, 64 * MiB, 16 * MiB);
    for (int i = 0; i < 5; i++) {
        g_usleep(20 * 1000);
        gdb_stop(fd);
        g_assert_cmphex(gdb_read64(fd, AT), ==,
                        i ? 0x100 + i - 1 : guest_memfd_pattern(AT, SEED));
        gdb_write64(fd, AT, 0x100 + i);
        gdb_send(fd, "c");
    }
    vm_stop_count(vm);
    g_assert_cmphex(vm_read64(vm, AT), ==, 0x104);
    close(fd);
    vm_quit(vm);
}

/*
 * A breakpoint is an instruction in the guest's RAM: it comes, and goes.  That
 * it stops the guest is KVM's part, and not all hosts have it.
 */
static void test_gdb_breakpoint(void)
{
    const uint64_t original = guest_memfd_pattern(AT, SEED);
    const uint64_t patched = (original & ~0xffULL) | 0xcc;
    int fd;
    VM *vm = start_gdb(&fd);
    g_autofree char *why = gdb(fd, "?");
    g_autofree char *set = gdb(fd, "Z0,%" PRIx64 ",1", (uint64_t)AT);
    g_autofree char *clear = NULL;

    g_assert_cmpint(why[0], ==, 'T');
    g_assert_cmpstr(set, ==, "OK");
    g_assert_cmphex(qtest_readq(vm->qts, AT), ==, patched);
    gdb_send(fd, "c");
    g_assert_cmphex(vm_read64(vm, AT), ==, patched);
    gdb_stop(fd);
    clear = gdb(fd, "z0,%" PRIx64 ",1", (uint64_t)AT);
    g_assert_cmpstr(clear, ==, "OK");
    gdb_detach(fd);
    vm_check_range(vm, AT, LEN, SEED);
    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_quit(vm);
}

/* RAM that has been cut into cells is KVM's, too */
static void test_mtree(void)
{
    VM *vm = start("q35", "");
    g_autofree char *text = qtest_hmp(vm->qts, "info mtree -f");

    g_assert_true(g_regex_match_simple("0000000000100000-.*: ram0 .* KVM",
                                       text, 0, 0));
    vm_quit(vm);
}

int main(int argc, char **argv)
{
    int ret;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    qtest_add_data_func("/guest-memfd/dump/elf/pc", "pc", test_dump_elf);
    qtest_add_data_func("/guest-memfd/dump/elf/q35", "q35", test_dump_elf);
    qtest_add_data_func("/guest-memfd/dump/kdump/pc", "pc", test_dump_kdump);
    qtest_add_data_func("/guest-memfd/dump/kdump/q35", "q35", test_dump_kdump);
    qtest_add_data_func("/guest-memfd/monitor/pmemsave", "pmemsave", test_save);
    qtest_add_data_func("/guest-memfd/monitor/memsave", "memsave", test_save);
    qtest_add_func("/guest-memfd/monitor/xp", test_xp);
    qtest_add_func("/guest-memfd/monitor/mtree", test_mtree);
    qtest_add_func("/guest-memfd/gdb/memory", test_gdb_memory);
    qtest_add_func("/guest-memfd/gdb/running", test_gdb_running);
    qtest_add_func("/guest-memfd/gdb/breakpoint", test_gdb_breakpoint);

    ret = g_test_run();
    rmdir(tmp);
    return ret;
}
