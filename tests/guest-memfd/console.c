/*
 * Guest payload: lines in, lines out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"

#include <stdarg.h>

static void put_number(uint64_t n, unsigned base)
{
    char digits[20];
    unsigned i = 0;

    do {
        digits[i++] = "0123456789abcdef"[n % base];
        n /= base;
    } while (n);
    while (i) {
        serial_put(digits[--i]);
    }
}

/* %s, %lu and %lx (which brings its own 0x), and nothing else. */
void say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            serial_put(*fmt);
        } else if (*++fmt == 's') {
            for (const char *s = va_arg(ap, const char *); *s; s++) {
                serial_put(*s);
            }
        } else if (*++fmt == 'u') {
            put_number(va_arg(ap, unsigned long), 10);
        } else {
            serial_put('0');
            serial_put('x');
            put_number(va_arg(ap, unsigned long), 16);
        }
    }
    va_end(ap);
}

/* False, with the line read to its end, if it is longer than @size - 1. */
bool read_line(char *buf, size_t size)
{
    size_t n = 0;

    for (;;) {
        char c;

        while (!serial_ready()) {
            serial_wait();
        }
        c = serial_get();
        if (c == '\n') {
            buf[n < size ? n : size - 1] = '\0';
            return n < size;
        } else if (c != '\r') {
            if (n < size) {
                buf[n] = c;
            }
            n++;
        }
    }
}
