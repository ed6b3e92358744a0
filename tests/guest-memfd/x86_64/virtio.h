/*
 * Guest payload on x86-64: commands that need a virtio device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_X86_64_VIRTIO_H
#define GUEST_MEMFD_X86_64_VIRTIO_H

#include <stdbool.h>

/* False: not one of them. */
bool virtio_command(unsigned args, char **arg);

#endif
