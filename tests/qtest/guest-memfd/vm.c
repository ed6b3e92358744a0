/*
 * VMs whose RAM is a guest_memfd, running the payload of tests/guest-memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "vm.h"

#define ANSWER_TIMEOUT_MS 120000

bool guest_memfd_supported(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    int flags = vm < 0 ? 0 : ioctl(vm, KVM_CHECK_EXTENSION,
                                   KVM_CAP_GUEST_MEMFD_FLAGS);
    bool ret = (flags & 3) == 3;

    if (kvm < 0) {
        g_test_message("cannot open /dev/kvm: %s", strerror(errno));
    } else if (!ret) {
        g_test_message("KVM_CAP_GUEST_MEMFD_FLAGS is 0x%x, not 0x3", flags);
    }
    if (vm >= 0) {
        close(vm);
    }
    if (kvm >= 0) {
        close(kvm);
    }
    return ret;
}

/* The next line from the payload, without its end */
static char *read_line(VM *vm)
{
    while (true) {
        char *end = memchr(vm->input->str, '\n', vm->input->len);
        struct pollfd pfd = { .fd = vm->serial, .events = POLLIN };
        char buf[512];
        ssize_t n;

        if (end) {
            char *line = g_strndup(vm->input->str, end - vm->input->str);

            g_string_erase(vm->input, 0, end - vm->input->str + 1);
            g_strchomp(line);
            return line;
        }
        g_assert_cmpint(poll(&pfd, 1, ANSWER_TIMEOUT_MS), ==, 1);
        n = read(vm->serial, buf, sizeof(buf));
        g_assert_cmpint(n, >, 0);
        g_string_append_len(vm->input, buf, n);
    }
}

VM *vm_start(const char *fmt, ...)
{
    g_autofree char *args = NULL, *all = NULL;
    VM *vm = g_new0(VM, 1);
    va_list ap;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    all = g_strdup_printf("%s -accel kvm -cpu host,-arch-capabilities"
                          " -nodefaults"
                          " -bios tests/guest-memfd/payload-%s.bin",
                          args, qtest_get_arch());

    vm->input = g_string_new(NULL);
    vm->qts = qtest_init_with_serial(all, &vm->serial);
    return vm;
}

void vm_wait_ready(VM *vm)
{
    while (true) {
        g_autofree char *line = read_line(vm);

        if (strstr(line, "payload ready")) {
            return;
        }
    }
}

void vm_quit(VM *vm)
{
    qtest_quit(vm->qts);
    close(vm->serial);
    g_string_free(vm->input, true);
    g_free(vm);
}

G_GNUC_PRINTF(2, 0)
static char *vm_vcommand(VM *vm, const char *fmt, va_list ap)
{
    g_autofree char *command = g_strdup_vprintf(fmt, ap);
    g_autofree char *line = g_strconcat(command, "\n", NULL);

    g_assert_cmpint(write(vm->serial, line, strlen(line)), ==, strlen(line));
    while (true) {
        g_autofree char *answer = read_line(vm);

        if (g_str_has_prefix(answer, "ok")) {
            return g_strdup(g_strchug(answer + 2));
        }
        if (g_str_has_prefix(answer, "error")) {
            g_error("guest, '%s': %s", command, answer);
        }
    }
}

char *vm_command(VM *vm, const char *fmt, ...)
{
    va_list ap;
    char *answer;

    va_start(ap, fmt);
    answer = vm_vcommand(vm, fmt, ap);
    va_end(ap);
    return answer;
}

void vm_do(VM *vm, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_free(vm_vcommand(vm, fmt, ap));
    va_end(ap);
}

uint64_t vm_number(VM *vm, const char *fmt, ...)
{
    g_autofree char *answer = NULL;
    va_list ap;

    va_start(ap, fmt);
    answer = vm_vcommand(vm, fmt, ap);
    va_end(ap);
    return g_ascii_strtoull(answer, NULL, 0);
}

QDict *vm_info(VM *vm, const char *id)
{
    QDict *rsp = qtest_qmp(vm->qts, "{'execute': 'query-guest-memfd'}");
    QListEntry *entry;
    QDict *found = NULL;

    g_assert(qdict_haskey(rsp, "return"));
    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

        if (g_str_equal(qdict_get_str(info, "id"), id)) {
            found = qobject_ref(info);
        }
    }
    qobject_unref(rsp);
    return found;
}

bool vm_info_exists(VM *vm, const char *id)
{
    g_autoptr(QDict) info = vm_info(vm, id);

    return info;
}

uint64_t vm_info_number(VM *vm, const char *id, const char *member)
{
    g_autoptr(QDict) info = vm_info(vm, id);

    g_assert(info);
    return qdict_get_int(info, member);
}

int vm_count_slots(VM *vm, const char *id, const char *state)
{
    g_autoptr(QDict) info = vm_info(vm, id);
    QListEntry *entry;
    int n = 0;

    g_assert(info);
    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "slots"), entry) {
        QDict *slot = qobject_to(QDict, qlist_entry_obj(entry));

        n += g_str_equal(qdict_get_str(slot, "state"), state);
    }
    return n;
}

/*
 * Bytes of RAM that no slot shows: on a PC, the 128 KiB behind the VGA window
 * and, until PAM opens it, up to 256 KiB behind the ROMs below 1 MiB.
 */
static uint64_t hidden_bytes(const char *id)
{
    return g_str_equal(qtest_get_arch(), "x86_64") &&
           g_str_equal(id, "ram0") ? 384 * KiB : 0;
}

void vm_assert_bound(VM *vm, const char *id, uint64_t size)
{
    g_autoptr(QDict) info = vm_info(vm, id);
    uint64_t bound;

    g_assert(info);
    bound = qdict_get_int(info, "bound");
    g_assert_cmpint(qdict_get_int(info, "size"), ==, size);
    g_assert_cmpint(qdict_get_int(info, "hva"), ==, 0);
    g_assert_cmpint(bound, <=, size);
    g_assert_cmpint(bound, >=, size - hidden_bytes(id));
}

void vm_assert_hva(VM *vm, const char *id, const char *state)
{
    g_autoptr(QDict) info = vm_info(vm, id);

    g_assert(info);
    g_assert_cmpint(qdict_get_int(info, "bound"), ==, 0);
    g_assert_cmpint(qdict_get_int(info, "hva"), >=,
                    qdict_get_int(info, "size") - hidden_bytes(id));
    g_assert_cmpint(vm_count_slots(vm, id, state), ==,
                    qlist_size(qdict_get_qlist(info, "slots")));
}

int vm_count_gmem_fds(VM *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd",
                                            (int)qtest_pid(vm->qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    int n = 0;

    g_assert(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *link = g_build_filename(path, name, NULL);
        g_autofree char *target = g_file_read_link(link, NULL);

        n += target && strstr(target, "kvm-gmem");
    }
    return n;
}

void vm_wait_gmem_fds(VM *vm, int n)
{
    for (int i = 0; i < 500 && vm_count_gmem_fds(vm) != n; i++) {
        g_usleep(10 * 1000);
    }
    g_assert_cmpint(vm_count_gmem_fds(vm), ==, n);
}
