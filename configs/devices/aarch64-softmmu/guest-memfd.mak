# SPDX-License-Identifier: GPL-2.0-or-later
#
# For the nested tests (tests/nested): the machine "virt", devices that have to
# do with RAM, and those of contrib/libvirt/arm64.xml

CONFIG_ARM_VIRT=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BALLOON=y
CONFIG_VIRTIO_MEM=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_NET=y
# 10.2 has no stubs for what ACPI wants of CXL, whose ports derive from PCIe's
CONFIG_PXB=y
CONFIG_PCIE_PORT=y
CONFIG_CXL=y
CONFIG_CXL_MEM_DEVICE=y
