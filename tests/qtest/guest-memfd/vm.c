/*
 * VMs whose RAM is a guest_memfd, running the payload of tests/guest-memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/kvm.h>
#include "qemu/atomic.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "vm.h"

const VMKind vm_kinds[] = {
#ifdef HOST_AARCH64
    { "virt", "virt", 1 }, { "virt-smp", "virt", 4 },
#else
    { "pc", "pc", 1 }, { "q35", "q35", 4 },
#endif
};

/* What KVM_CHECK_EXTENSION says of a new VM, or -errno if there is no KVM */
static int check_extension(int cap)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    int ret = vm < 0 ? -errno : ioctl(vm, KVM_CHECK_EXTENSION, cap);

    if (vm >= 0) {
        close(vm);
    }
    if (kvm >= 0) {
        close(kvm);
    }
    return ret;
}

/* Why this host has no mappable guest_memfd; NULL if it has */
static char *missing(void)
{
    int flags = check_extension(KVM_CAP_GUEST_MEMFD_FLAGS);

    if (flags < 0) {
        return g_strdup_printf("cannot create a VM with /dev/kvm: %s",
                               strerror(-flags));
    }
    return (flags & 3) == 3 ? NULL :
           g_strdup_printf("KVM_CAP_GUEST_MEMFD_FLAGS is %d, not 3", flags);
}

bool vm_prealloc_maps(void)
{
#ifdef HOST_AARCH64
    return false;
#else
    return check_extension(KVM_CAP_PRE_FAULT_MEMORY) <= 0;
#endif
}

bool vm_test_init(int *argc, char ***argv)
{
    g_autofree char *reason = missing();

    g_test_init(argc, argv, NULL);
    if (reason) {
        printf("1..0 # SKIP %s\n", reason);
    }
    return !reason;
}

void vm_add_tests(const char *group, GTestDataFunc func)
{
    for (int i = 0; i < ARRAY_SIZE(vm_kinds); i++) {
        g_autofree char *path = g_strdup_printf("/guest-memfd/%s/%s", group,
                                                vm_kinds[i].name);

        qtest_add_data_func(path, &vm_kinds[i], func);
    }
}

bool vm_has_status(VM *vm, const char *status)
{
    g_autoptr(QDict) rsp = qtest_qmp_assert_success_ref(vm->qts,
        "{'execute': 'query-status'}");

    return g_str_equal(qdict_get_str(rsp, "status"), status);
}

/* Wait for input, or until the VM stops if it may; false if it did */
static bool wait_for_input(VM *vm)
{
    struct pollfd pfd = { .fd = vm->serial, .events = POLLIN };

    if (!vm->may_stop) {
        g_assert_cmpint(poll(&pfd, 1, VM_TIMEOUT_S * 1000), ==, 1);
        return true;
    }
    VM_WAIT(poll(&pfd, 1, 200) == 1 ||
            (vm->stopped = vm_has_status(vm, "internal-error")));
    return !vm->stopped;
}

/* The next line from the payload, without its end; NULL if the VM stops */
static char *read_line(VM *vm)
{
    while (true) {
        char *end = memchr(vm->input->str, '\n', vm->input->len);
        char buf[512];
        ssize_t n;

        if (end) {
            char *line = g_strndup(vm->input->str, end - vm->input->str);

            g_string_erase(vm->input, 0, end - vm->input->str + 1);
            g_strchomp(line);
            return line;
        }
        if (vm->stopped || !wait_for_input(vm)) {
            return NULL;
        }
        n = read(vm->serial, buf, sizeof(buf));
        g_assert_cmpint(n, >, 0);
        g_string_append_len(vm->input, buf, n);
    }
}

static FaultFile *fault_file;

static void forget_faults(void)
{
    unlink(getenv("GUEST_MEMFD_FAULT"));
}

/* The one file of this program, which QEMU maps, too */
static void make_fault_file(void)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("guest-memfd-fault-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, FAULT_FILE_SIZE), ==, 0);
    fault_file = mmap(NULL, FAULT_FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                      fd, 0);
    g_assert(fault_file != MAP_FAILED);
    close(fd);
    g_setenv("GUEST_MEMFD_FAULT", path, true);
    atexit(forget_faults);
}

void vm_set_faults(const char *faults)
{
    g_assert_cmpint(strlen(faults), <, sizeof(fault_file->words));
    /* Never half a word: its first letter comes last */
    qatomic_store_release(&fault_file->words[0], 0);
    for (int i = 0; i < FAULT_KINDS_N; i++) {
        qatomic_set(&fault_file->calls[i], 0);
    }
    qatomic_set(&fault_file->failed, 0);
    if (faults[0]) {
        strcpy(fault_file->words + 1, faults + 1);
        qatomic_store_release(&fault_file->words[0], faults[0]);
    }
}

uint64_t vm_count_calls(FaultKind kind)
{
    return qatomic_read(&fault_file->calls[kind]);
}

uint64_t vm_count_failed_calls(void)
{
    return qatomic_read(&fault_file->failed);
}

void vm_faults_begin(const char *faults)
{
    if (!fault_file) {
        make_fault_file();
    }
    if (faults) {
        vm_set_faults(faults);
    }
    g_setenv("LD_PRELOAD", VM_FAULT_LIB, true);
}

void vm_faults_end(void)
{
    g_unsetenv("LD_PRELOAD");
}

/* A lost guest ends in a triple fault, and must not pass for a new one */
static bool on_event(QTestState *qts, const char *name, QDict *event,
                     void *opaque)
{
    VM *vm = opaque;

    if (g_str_equal(name, "RESET") &&
        g_str_equal(qdict_get_str(qdict_get_qdict(event, "data"), "reason"),
                    "guest-reset") && !vm->resets--) {
        g_error("RESET: the guest reset its machine, and was not told to");
    }
    return false;
}

static void make_vcpus_idle(VM *vm)
{
    g_autoptr(QDict) rsp = qtest_qmp(vm->qts, "{'execute': 'query-cpus-fast'}");
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *cpu = qobject_to(QDict, qlist_entry_obj(entry));

        g_assert_cmpint(sched_setscheduler(qdict_get_int(cpu, "thread-id"),
                                           SCHED_IDLE,
                                           &(struct sched_param) {}), ==, 0);
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
    all = g_strdup_printf("%s -accel kvm -cpu " VM_CPU " -nodefaults"
                          " -bios tests/guest-memfd/payload-%s.bin",
                          args, qtest_get_arch());

    vm->input = g_string_new(NULL);
    vm->qts = qtest_init_with_serial(all, &vm->serial);
    qtest_qmp_set_event_callback(vm->qts, on_event, vm);
    if (getenv("GUEST_MEMFD_IDLE_VCPUS")) {
        make_vcpus_idle(vm);
    }
    return vm;
}

void vm_wait_ready(VM *vm)
{
    while (true) {
        g_autofree char *line = read_line(vm);

        if (!line || strstr(line, "payload ready")) {
            return;
        }
    }
}

void vm_reset(VM *vm)
{
    vm->resets++;
    vm_do(vm, "reset");
    vm_wait_ready(vm);
}

void vm_quit(VM *vm)
{
    if (qtest_probe_child(vm->qts)) {
        vm_has_status(vm, "");      /* hear the events that nobody waited for */
    }
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

        if (!answer) {
            return g_strdup("");
        }
        if (g_str_has_prefix(answer, "ok")) {
            return g_strdup(g_strchug(answer + 2));
        }
        if (g_str_has_prefix(answer, "error")) {
            g_error("guest, '%s': %s", command, answer);
        }
    }
}

void vm_poke(VM *vm)
{
    g_assert_cmpint(write(vm->serial, "\n", 1), ==, 1);
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

void vm_fill(VM *vm, uint64_t seed)
{
    vm_do(vm, "fill %" PRIu64, seed);
}

void vm_check(VM *vm, uint64_t seed)
{
    vm_do(vm, "check %" PRIu64, seed);
}

void vm_fill_range(VM *vm, uint64_t start, uint64_t len, uint64_t seed)
{
    vm_do(vm, "fillr %" PRIu64 " %" PRIu64 " %" PRIu64, start, len, seed);
}

void vm_check_range(VM *vm, uint64_t start, uint64_t len, uint64_t seed)
{
    vm_do(vm, "checkr %" PRIu64 " %" PRIu64 " %" PRIu64, start, len, seed);
}

void vm_check_zero(VM *vm, uint64_t start, uint64_t len)
{
    vm_do(vm, "zero %" PRIu64 " %" PRIu64, start, len);
}

uint64_t vm_read64(VM *vm, uint64_t addr)
{
    g_autofree char *value = vm_command(vm, "read64 %" PRIu64, addr);

    return g_ascii_strtoull(value, NULL, 0);
}

void vm_write64(VM *vm, uint64_t addr, uint64_t value)
{
    vm_do(vm, "write64 %" PRIu64 " %" PRIu64, addr, value);
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

/*
 * Slots of the main address space in a state, or in any if @state is NULL; on
 * x86, System Management Mode has slots of its own, which are never bound
 */
static int count_slots(QDict *info, const char *state, uint64_t *bytes)
{
    QListEntry *entry;
    int n = 0;

    *bytes = 0;
    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "slots"), entry) {
        QDict *slot = qobject_to(QDict, qlist_entry_obj(entry));

        if (qdict_get_int(slot, "address-space") == 0 &&
            (!state || g_str_equal(qdict_get_str(slot, "state"), state))) {
            *bytes += qdict_get_int(slot, "size");
            n++;
        }
    }
    return n;
}

int vm_count_slots(VM *vm, const char *id, const char *state)
{
    g_autoptr(QDict) info = vm_info(vm, id);
    uint64_t bytes;

    g_assert(info);
    return count_slots(info, state, &bytes);
}

/*
 * Bytes of RAM that no slot shows: on a PC, the 128 KiB behind the VGA window
 * and, until PAM opens it, up to 256 KiB behind the ROMs below 1 MiB.
 */
static uint64_t hidden_bytes(QDict *info)
{
#ifndef HOST_AARCH64
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "slots"), entry) {
        QDict *slot = qobject_to(QDict, qlist_entry_obj(entry));

        if (qdict_get_int(slot, "gpa") == 0) {
            return 384 * KiB;
        }
    }
#endif
    return 0;
}

/* All slots are in this state; the bytes they have */
static uint64_t assert_state(QDict *info, const char *state)
{
    uint64_t bytes, all;

    g_assert(info);
    g_assert_cmpint(count_slots(info, state, &bytes), ==,
                    count_slots(info, NULL, &all));
    return bytes;
}

/* ... which are all RAM that can be seen */
static void assert_all(QDict *info, const char *state)
{
    uint64_t bytes = assert_state(info, state);
    uint64_t size = qdict_get_int(info, "size");

    g_assert_cmpint(bytes, >=, size - hidden_bytes(info));
    g_assert_cmpint(bytes, <=, size);
}

void vm_assert_bound(VM *vm, const char *id, uint64_t size)
{
    g_autoptr(QDict) info = vm_info(vm, id);

    assert_all(info, "bound");
    g_assert_cmpint(qdict_get_int(info, "size"), ==, size);
    g_assert_cmpint(qdict_get_int(info, "bound"), >=,
                    size - hidden_bytes(info));
}

void vm_assert_slots_bound(VM *vm, const char *id)
{
    g_autoptr(QDict) info = vm_info(vm, id);

    assert_state(info, "bound");
}

void vm_assert_unbound(VM *vm, const char *id, const char *state)
{
    g_autoptr(QDict) info = vm_info(vm, id);

    assert_all(info, state);
    g_assert_cmpint(qdict_get_int(info, "bound"), ==, 0);
}

void vm_wait_settled(VM *vm, const char *id)
{
    VM_WAIT(!vm_count_slots(vm, id, "dirty-log") &&
            !vm_count_slots(vm, id, "switching"));
}

GArray *vm_list_fds(VM *vm, const char *text)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd",
                                            (int)qtest_pid(vm->qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    GArray *fds = g_array_new(false, false, sizeof(int));
    const char *name;

    g_assert(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *link = g_build_filename(path, name, NULL);
        g_autofree char *target = g_file_read_link(link, NULL);
        int fd = atoi(name);

        if (target && strstr(target, text)) {
            g_array_append_val(fds, fd);
        }
    }
    return fds;
}

int vm_count_gmem_fds(VM *vm)
{
    g_autoptr(GArray) fds = vm_list_fds(vm, VM_GMEM_LINK);

    return fds->len;
}

void vm_wait_gmem_fds(VM *vm, int n)
{
    VM_WAIT(vm_count_gmem_fds(vm) == n);
}

char *vm_fail(const char *fmt, ...)
{
    g_autofree char *args = NULL, *line = NULL, *err = NULL;
    g_autoptr(GError) error = NULL;
    va_list ap;
    int status;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    /* One that starts after all must not run for ever */
    line = g_strdup_printf("timeout 600 %s %s -accel kvm"
                           " -cpu " VM_CPU " -display none -nodefaults"
                           " -bios tests/guest-memfd/payload-%s.bin",
                           getenv("QTEST_QEMU_BINARY"), args,
                           qtest_get_arch());
    g_assert_true(g_spawn_command_line_sync(line, NULL, &err, &status,
                                            &error));
    g_test_message("%s", err);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    return g_steal_pointer(&err);
}

void vm_start_count(VM *vm, int cpus, uint64_t start, uint64_t len)
{
    if (cpus > 1) {
        vm_do(vm, "smp %d", cpus);
    }
    vm->count = start;
    qtest_writeq(vm->qts, start, 0);
    vm_do(vm, "count %" PRIu64 " %" PRIu64, start, len);
}

void vm_stop_count(VM *vm)
{
    g_autofree char *answer = NULL;

    /* One pass at least, by the first CPU */
    VM_WAIT(qtest_readq(vm->qts, vm->count) >= 2);
    answer = vm_command(vm, "stop");
    g_assert_true(g_str_has_prefix(answer, "passes="));
}

bool vm_socket_listens(const char *path)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    g_assert_true(g_file_get_contents("/proc/net/unix", &text, NULL, NULL));
    lines = g_strsplit(text, "\n", 0);
    for (char **line = lines; *line; line++) {
        if (strstr(*line, " 00010000 ") && g_str_has_suffix(*line, path)) {
            return true;
        }
    }
    return false;
}

int vm_count_maps(VM *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/maps",
                                            (int)qtest_pid(vm->qts));
    g_autofree char *text = NULL;
    int n = 0;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (char *at = text; (at = strstr(at, VM_GMEM_LINK)); at++) {
        n++;
    }
    return n;
}
