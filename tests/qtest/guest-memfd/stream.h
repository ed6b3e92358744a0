/*
 * Where the headers of RAM are in a migration stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_STREAM_H
#define TESTS_GUEST_MEMFD_STREAM_H

/* The lowest bits of each header; above them is the address of the page */
#define STREAM_PAGE_SIZE        4096
#define STREAM_ZERO             0x02
#define STREAM_MEM_SIZE         0x04
#define STREAM_PAGE             0x08
#define STREAM_EOS              0x10
#define STREAM_CONTINUE         0x20    /* of the same block as the last page */

/* Offsets (size_t) of all 64-bit words that announce RAM, in ascending order */
GArray *stream_find_headers(const uint8_t *stream, size_t len);

#endif
