/*
 * Programs that a VM shares its memory with
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_PEER_H
#define TESTS_GUEST_MEMFD_PEER_H

/* The command for a program that is not QEMU's; not set in an ordinary run */
#define PEER_COMMAND "GUEST_MEMFD_PEER"

typedef struct Peer Peer;

/*
 * Start a program with the words of @command, where @socket and @share stand
 * for the other arguments, and wait until it listens on that UNIX socket.  It
 * is killed when the test ends, however that ends.
 */
Peer *peer_start(const char *command, const char *socket, const char *share);
/* Give it a line; what it answers, without the end of the line */
char *peer_ask(Peer *peer, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* No chance to say goodbye */
void peer_kill(Peer *peer);

#endif
