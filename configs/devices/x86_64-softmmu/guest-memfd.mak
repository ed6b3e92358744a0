# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the tests of guest_memfd RAM need, and the emulated hosts that they run
# in: both PCs, and devices that have to do with RAM

CONFIG_I440FX=y
CONFIG_Q35=y
CONFIG_VTD=y
CONFIG_EDU=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_9P=y
CONFIG_VIRTIO_BALLOON=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_MEM=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_PMEM=y
CONFIG_VHOST_USER_BLK=y
CONFIG_VHOST_USER_FS=y
CONFIG_VHOST_USER_RNG=y

# QEMU 10.2 does not link without: hw/acpi/cxl.c calls it
CONFIG_PXB=y
CONFIG_CXL=y
CONFIG_CXL_MEM_DEVICE=y
CONFIG_PCIE_PORT=y
