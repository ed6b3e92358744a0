/*
 * DIMMs that come and go while the VM runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "plug.h"

/* The controller of DIMMs: an I/O port, or memory */
#ifdef HOST_AARCH64
#define DIMM_OUT(size)      qtest_write##size
#define DIMM_CONTROLLER     0x9070000
#else
#define DIMM_OUT(size)      qtest_out##size
#define DIMM_CONTROLLER     0xa00
#endif
#define DIMM_SELECT         (DIMM_CONTROLLER + 0x00)
#define DIMM_CONTROL        (DIMM_CONTROLLER + 0x14)
#define DIMM_EJECT          8

void vm_add_backend(VM *vm, const char *type, int i, uint64_t size)
{
    g_autofree char *mem = g_strdup_printf("mem%d", i);

    qtest_qmp_assert_success(vm->qts, "{'execute': 'object-add', 'arguments': {"
                             "'qom-type': %s, 'id': %s, 'size': %" PRIu64 "}}",
                             type, mem, size);
}

void vm_del_backend(VM *vm, int i)
{
    g_autofree char *mem = g_strdup_printf("mem%d", i);

    qtest_qmp_assert_success(vm->qts, "{'execute': 'object-del',"
                             "'arguments': {'id': %s}}", mem);
}

QDict *vm_try_dimm(VM *vm, int i, uint64_t addr)
{
    g_autofree char *mem = g_strdup_printf("mem%d", i);
    g_autofree char *dimm = g_strdup_printf("dimm%d", i);

    return qtest_qmp(vm->qts, "{'execute': 'device_add', 'arguments': {"
                     "'driver': 'pc-dimm', 'id': %s, 'memdev': %s,"
                     "'slot': %d, 'addr': %" PRIu64 "}}", dimm, mem, i, addr);
}

void vm_add_dimm(VM *vm, int i, uint64_t addr)
{
    g_autoptr(QDict) rsp = vm_try_dimm(vm, i, addr);

    if (!qdict_haskey(rsp, "return")) {
        g_error("dimm%d: %s", i,
                qdict_get_str(qdict_get_qdict(rsp, "error"), "desc"));
    }
}

void vm_del_dimm(VM *vm, int i)
{
    g_autofree char *dimm = g_strdup_printf("dimm%d", i);

    qtest_qmp_assert_success(vm->qts, "{'execute': 'device_del',"
                             "'arguments': {'id': %s}}", dimm);
    DIMM_OUT(l)(vm->qts, DIMM_SELECT, i);
    DIMM_OUT(b)(vm->qts, DIMM_CONTROL, DIMM_EJECT);
    qtest_qmp_eventwait(vm->qts, "DEVICE_DELETED");
}

void vm_plug_dimm(VM *vm, int i, uint64_t size, uint64_t addr)
{
    vm_add_backend(vm, "memory-backend-guest-memfd", i, size);
    vm_add_dimm(vm, i, addr);
}

void vm_remove_dimm(VM *vm, int i)
{
    vm_del_dimm(vm, i);
    vm_del_backend(vm, i);
}
