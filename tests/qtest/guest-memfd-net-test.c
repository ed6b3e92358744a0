/*
 * Networks that read and write packets in guest_memfd RAM
 *
 * UDP between the guest and a socket on this machine: what the guest sends is
 * its own pattern (tests/guest-memfd), and what it gets back goes to where it
 * came from, so that the guest can check it.
 *
 * Run by root, all of it happens in a network namespace of the test's own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <linux/if_tun.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <netinet/if_ether.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "standard-headers/linux/virtio_net.h"
#include "../guest-memfd/pattern.h"
#include "guest-memfd/crawl.h"
#include "guest-memfd/peer.h"
#include "guest-memfd/virtio.h"
#include "guest-memfd/vm.h"

/* Guest RAM: what is sent and comes back, a packet a chunk */
#define DATA        (16 * MiB)
#define DATA_LEN    (16 * KiB)
#define CHUNK       1024
#define GARBAGE     999

/* All networks here are this one */
#define HOST_IP     "10.0.2.2"
#define GUEST_IP    "10.0.2.15"
#define NETMASK     "255.255.255.0"
#define GUEST_PORT  4000
#define TAP         "gmem-tap"

/* UDP may lose packets: send again after a while */
#define AGAIN_MS    1000
#define TRIES       100

enum { RX, TX, QUEUES };

typedef struct QEMU_PACKED Packet {
    struct virtio_net_hdr_v1 virtio;
    struct ether_header eth;
    union {
        struct QEMU_PACKED {
            struct iphdr ip;
            struct udphdr udp;
        };
        struct ether_arp arp;
    };
} Packet;

typedef struct Net {
    VM *vm;
    VirtioDriver *driver;
    bool posted;                /* a buffer for a packet to come */
    uint8_t host_mac[ETH_ALEN];
    int socket;
    struct sockaddr_in from;    /* the guest, as the socket sees it */
} Net;

static const uint8_t guest_mac[ETH_ALEN] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };

static Packet new_packet(const uint8_t *to, uint16_t type)
{
    Packet packet = { .eth.ether_type = htons(type) };

    memcpy(packet.eth.ether_dhost, to, ETH_ALEN);
    memcpy(packet.eth.ether_shost, guest_mac, ETH_ALEN);
    return packet;
}

/*
 * Data in guest RAM have the packet's headers right before them, for passt
 * takes no other buffers than Linux's drivers have.
 */
static VirtioBuf whole_packet(uint64_t data, uint32_t len, bool fill)
{
    return (VirtioBuf) { data - sizeof(Packet), sizeof(Packet) + len, fill };
}

static void transmit(Net *net, const Packet *packet, uint64_t data,
                     uint32_t len)
{
    const VirtioBuf buf = whole_packet(data, len, false);

    qtest_memwrite(net->vm->qts, buf.addr, packet, sizeof(*packet));
    virtio_submit(net->driver, TX, &buf, 1);
    virtio_wait(net->driver, TX);
}

static void send_arp(Net *net, uint16_t operation, const uint8_t *to,
                     const char *to_ip)
{
    Packet packet = new_packet(to, ETHERTYPE_ARP);

    packet.arp.ea_hdr = (struct arphdr) {
        .ar_hrd = htons(ARPHRD_ETHER), .ar_pro = htons(ETHERTYPE_IP),
        .ar_hln = ETH_ALEN, .ar_pln = 4, .ar_op = htons(operation),
    };
    memcpy(packet.arp.arp_sha, guest_mac, ETH_ALEN);
    inet_pton(AF_INET, GUEST_IP, packet.arp.arp_spa);
    if (operation == ARPOP_REPLY) {
        memcpy(packet.arp.arp_tha, to, ETH_ALEN);
    }
    inet_pton(AF_INET, to_ip, packet.arp.arp_tpa);
    transmit(net, &packet, DATA, 0);
}

/*
 * The next packet, its data to guest RAM; false if there is none for a while.
 * Then the buffer stays posted: the next call must be for the same one.
 */
static bool receive(Net *net, Packet *packet, uint64_t data)
{
    const VirtioBuf buf = whole_packet(data, CHUNK, true);
    int64_t end = g_get_monotonic_time() + AGAIN_MS * 1000;

    if (!net->posted) {
        virtio_submit(net->driver, RX, &buf, 1);
        net->posted = true;
    }
    while (!virtio_poll(net->driver, RX)) {
        if (g_get_monotonic_time() > end) {
            return false;
        }
        g_usleep(1000);
    }
    net->posted = false;
    qtest_memread(net->vm->qts, buf.addr, packet, sizeof(*packet));

    if (packet->eth.ether_type == htons(ETHERTYPE_ARP) &&
        packet->arp.ea_hdr.ar_op == htons(ARPOP_REQUEST)) {
        send_arp(net, ARPOP_REPLY, packet->arp.arp_sha, HOST_IP);
    }
    return true;
}

static void find_host(Net *net)
{
    const uint8_t everybody[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    Packet packet;

    for (int i = 0; i < TRIES; i++) {
        send_arp(net, ARPOP_REQUEST, everybody, HOST_IP);
        while (receive(net, &packet, DATA)) {
            if (packet.eth.ether_type == htons(ETHERTYPE_ARP) &&
                packet.arp.ea_hdr.ar_op == htons(ARPOP_REPLY)) {
                memcpy(net->host_mac, packet.arp.arp_sha, ETH_ALEN);
                return;
            }
        }
    }
    g_error("no ARP reply from " HOST_IP);
}

static uint16_t ip_checksum(const void *ip)
{
    uint32_t sum = 0;

    for (int i = 0; i < sizeof(struct iphdr) / 2; i++) {
        sum += lduw_be_p(ip + 2 * i);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return htons(~(sum + (sum >> 16)));
}

static uint16_t host_port(Net *net)
{
    struct sockaddr_in address;
    socklen_t len = sizeof(address);

    g_assert_cmpint(getsockname(net->socket, &address, &len), ==, 0);
    return address.sin_port;
}

/* From guest RAM to the socket */
static void send_chunk(Net *net, uint64_t data)
{
    Packet packet = new_packet(net->host_mac, ETHERTYPE_IP);

    packet.ip = (struct iphdr) {
        .version = 4, .ihl = sizeof(packet.ip) / 4, .ttl = 64,
        .tot_len = htons(sizeof(packet.ip) + sizeof(packet.udp) + CHUNK),
        .protocol = IPPROTO_UDP,
        .saddr = inet_addr(GUEST_IP), .daddr = inet_addr(HOST_IP),
    };
    packet.ip.check = ip_checksum(&packet.ip);
    packet.udp = (struct udphdr) {
        .source = htons(GUEST_PORT), .dest = host_port(net),
        .len = htons(sizeof(packet.udp) + CHUNK),
    };
    transmit(net, &packet, data, CHUNK);
}

static void make_chunk(uint64_t *chunk, uint64_t address, uint64_t seed)
{
    for (int i = 0; i < CHUNK / 8; i++) {
        chunk[i] = cpu_to_le64(guest_memfd_pattern(address + 8 * i, seed));
    }
}

static void guest_to_host(Net *net, uint64_t data, uint64_t seed)
{
    struct pollfd poll_socket = { .fd = net->socket, .events = POLLIN };
    uint64_t expected[CHUNK / 8], found[CHUNK / 8];

    make_chunk(expected, data, seed);
    for (int i = 0; i < TRIES; i++) {
        send_chunk(net, data);
        while (poll(&poll_socket, 1, AGAIN_MS) == 1) {
            socklen_t len = sizeof(net->from);

            g_assert_cmpint(recvfrom(net->socket, found, sizeof(found),
                                     MSG_TRUNC, (struct sockaddr *)&net->from,
                                     &len), ==, CHUNK);
            /* Else an earlier one that came late and so was sent twice */
            if (found[0] == expected[0]) {
                g_assert_cmpmem(found, CHUNK, expected, CHUNK);
                return;
            }
        }
    }
    g_error("the host has not got the packet");
}

static void host_to_guest(Net *net, uint64_t data, uint64_t seed)
{
    uint64_t chunk[CHUNK / 8];
    Packet packet;

    make_chunk(chunk, data, seed);
    for (int i = 0; i < TRIES; i++) {
        g_assert_cmpint(sendto(net->socket, chunk, sizeof(chunk), 0,
                               (struct sockaddr *)&net->from,
                               sizeof(net->from)), ==, CHUNK);
        while (receive(net, &packet, data)) {
            /* An earlier one would have other data */
            if (packet.eth.ether_type == htons(ETHERTYPE_IP) &&
                packet.ip.protocol == IPPROTO_UDP &&
                packet.udp.dest == htons(GUEST_PORT) &&
                qtest_readq(net->vm->qts, data) == le64_to_cpu(chunk[0])) {
                return;
            }
        }
    }
    g_error("the guest has not got the packet");
}

static void send_and_receive(Net *net, uint64_t seed)
{
    vm_fill_range(net->vm, DATA, DATA_LEN, seed);
    /* The headers of each end up in what was sent already */
    for (uint64_t data = DATA; data < DATA + DATA_LEN; data += CHUNK) {
        guest_to_host(net, data, seed);
    }
    vm_fill_range(net->vm, DATA, DATA_LEN, GARBAGE);
    /* ... and in what is yet to come */
    for (uint64_t data = DATA + DATA_LEN; data > DATA; data -= CHUNK) {
        host_to_guest(net, data - CHUNK, seed);
    }
    vm_check_range(net->vm, DATA, DATA_LEN, seed);
}

/* Is it QEMU that reads and writes the packets, or somebody else? */
static bool uses_vhost(VM *vm)
{
    g_autoptr(QDict) rsp = qtest_qmp(vm->qts, "{'execute':"
                                     "'x-query-virtio-status', 'arguments':"
                                     "{'path': '/machine/peripheral/nic/"
                                     "virtio-backend'}}");

    return qdict_get_bool(qdict_get_qdict(rsp, "return"), "vhost-started");
}

/* @host is where the network has the host's socket */
static void test_net(Net *net, const char *host, const char *machine,
                     const char *netdev, bool vhost)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(host),
    };

    net->socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(net->socket, (struct sockaddr *)&address,
                         sizeof(address)), ==, 0);
    net->vm = vm_start("-machine %s,memory-backend=ram0 -m " VM_RAM " "
                       VM_BACKEND ",kvm-bind=on %s,id=net0"
                       " -device virtio-net-pci,id=nic,netdev=net0,romfile="
                       IO_DEVICE,
                       machine, netdev);
    vm_wait_ready(net->vm);
    net->driver = virtio_io_start(net->vm, QUEUES);
    find_host(net);
    g_assert_true(uses_vhost(net->vm) == vhost);

    send_and_receive(net, 1);
    vm_assert_bound(net->vm, "ram0", VM_RAM_SIZE);
    crawl_start(net->vm, DATA + DATA_LEN);
    send_and_receive(net, 2);
    crawl_cancel(net->vm);
    send_and_receive(net, 3);

    virtio_free(net->driver);
    vm_quit(net->vm);
    close(net->socket);
}

static void test_slirp(const void *data)
{
    Net net = {};

    test_net(&net, "127.0.0.1", data, "-netdev user", false);
}

/* A tap device, with this end at HOST_IP */
static int open_tap(void)
{
    struct ifreq request = {
        .ifr_name = TAP, .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
    };
    struct sockaddr_in *address = (struct sockaddr_in *)&request.ifr_addr;
    int tap = open("/dev/net/tun", O_RDWR);
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(tap, >=, 0);
    g_assert_cmpint(ioctl(tap, TUNSETIFF, &request), ==, 0);
    *address = (struct sockaddr_in) {
        .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(HOST_IP),
    };
    g_assert_cmpint(ioctl(control, SIOCSIFADDR, &request), ==, 0);
    address->sin_addr.s_addr = inet_addr(NETMASK);
    g_assert_cmpint(ioctl(control, SIOCSIFNETMASK, &request), ==, 0);
    request.ifr_flags = IFF_UP;
    g_assert_cmpint(ioctl(control, SIOCSIFFLAGS, &request), ==, 0);
    close(control);
    return tap;
}

static void test_tap(const void *data)
{
    int tap = open_tap();
    g_autofree char *netdev = g_strdup_printf("-netdev tap,fd=%d,vhost=%s",
                                              tap, (const char *)data);
    Net net = {};

    test_net(&net, HOST_IP, "q35", netdev, g_str_equal(data, "on"));
    close(tap);
}

/* vhost-user, with a program that sends to 127.0.0.1 what is for HOST_IP */
static void test_peer(void)
{
    g_autofree char *dir = g_dir_make_tmp("guest-memfd-net-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "socket", NULL);
    g_autofree char *netdev = g_strdup_printf("-chardev socket,id=peer,path=%s"
                                              " -netdev vhost-user,"
                                              "chardev=peer", path);
    Peer *peer = peer_start(peer_command(), path, "");
    Net net = {};

    test_net(&net, "127.0.0.1", "q35", netdev, true);
    peer_kill(peer);
    peer_remove_dir(dir);
}

/* A network namespace of our own; false if we may not have one */
static bool isolate(void)
{
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    int control;

    if (unshare(CLONE_NEWNET) < 0) {
        return false;
    }
    control = socket(AF_INET, SOCK_DGRAM, 0);
    g_assert_cmpint(ioctl(control, SIOCSIFFLAGS, &request), ==, 0);
    close(control);
    return true;
}

int main(int argc, char **argv)
{
    bool isolated;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    isolated = isolate();
    if (peer_command()) {
        qtest_add_func("/guest-memfd/net/peer", test_peer);
        return g_test_run();
    }
    qtest_add_data_func("/guest-memfd/net/slirp/pc", "pc", test_slirp);
    qtest_add_data_func("/guest-memfd/net/slirp/q35", "q35", test_slirp);
    if (isolated && access("/dev/net/tun", R_OK | W_OK) == 0) {
        qtest_add_data_func("/guest-memfd/net/tap", "off", test_tap);
    }
    /* A host may have no vhost-net; one of tests/nested has */
    if (isolated && access("/dev/vhost-net", R_OK | W_OK) == 0) {
        qtest_add_data_func("/guest-memfd/net/vhost", "on", test_tap);
    }
    return g_test_run();
}
