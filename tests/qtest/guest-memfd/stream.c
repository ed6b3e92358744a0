/*
 * Where the headers of RAM are in a migration stream
 *
 * See migration/ram.c: each word is an address and flags in its lowest bits.
 * Anything that is not known ends the test: then this has to be brought up to
 * date.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "stream.h"

#define SECTION_START   0x01
#define SECTION_PART    0x02
#define SECTION_END     0x03
#define SECTION_FOOTER  0x7e

/* Past a name, whose length is in its first byte */
static size_t skip_name(const uint8_t *stream, size_t at)
{
    return at + 1 + stream[at];
}

/* The names and sizes of all blocks */
static size_t skip_blocks(const uint8_t *stream, size_t at, uint64_t total)
{
    while (total) {
        at = skip_name(stream, at);
        total -= ldq_be_p(stream + at);
        at += 8;
    }
    return at;
}

/* From the first header to the end of the section */
static size_t walk_section(const uint8_t *stream, size_t at, GArray *headers)
{
    while (true) {
        uint64_t header = ldq_be_p(stream + at);
        uint64_t flags = header & (STREAM_PAGE_SIZE - 1);

        g_array_append_val(headers, at);
        at += 8;
        if (flags == STREAM_EOS) {
            return at;
        }
        if (flags == STREAM_MEM_SIZE) {
            at = skip_blocks(stream, at, header - flags);
            continue;
        }
        if (!(flags & STREAM_CONTINUE)) {
            at = skip_name(stream, at);
        }
        flags &= ~STREAM_CONTINUE;
        g_assert_true(flags == STREAM_ZERO || flags == STREAM_PAGE);
        at += flags == STREAM_ZERO ? 1 : STREAM_PAGE_SIZE;
    }
}

GArray *stream_find_headers(const uint8_t *stream, size_t len)
{
    GArray *headers = g_array_new(false, false, sizeof(size_t));
    const uint8_t *name = memmem(stream, len, "\003ram", 4);
    const uint8_t *start;
    uint32_t section;
    size_t at;

    g_assert_true(name && name - stream > 5);
    start = name - 5;
    g_assert_cmpint(start[0], ==, SECTION_START);
    section = ldl_be_p(start + 1);
    at = name - stream + 4 + 8;         /* the instance, the version */
    do {
        at = walk_section(stream, at, headers);
        g_assert_cmpint(stream[at], ==, SECTION_FOOTER);
        g_assert_cmpint(ldl_be_p(stream + at + 1), ==, section);
        at += 5;
        start = stream + at;
        at += 5;
    } while ((start[0] == SECTION_PART || start[0] == SECTION_END) &&
             ldl_be_p(start + 1) == section);
    return headers;
}
