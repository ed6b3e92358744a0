/*
 * Where the headers of RAM are in a migration stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_STREAM_H
#define TESTS_GUEST_MEMFD_STREAM_H

/* Offsets (size_t) of all 64-bit words that announce RAM, in ascending order */
GArray *stream_find_headers(const uint8_t *stream, size_t len);

#endif
