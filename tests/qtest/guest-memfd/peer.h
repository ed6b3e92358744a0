/*
 * Programs that a VM shares its memory with
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_PEER_H
#define TESTS_GUEST_MEMFD_PEER_H

typedef struct Peer Peer;

/*
 * The command for a program that does not come with QEMU, from the environment
 * (tests/peers); NULL in an ordinary run
 */
const char *peer_command(void);

/* As vm_test_init(), for a test program that needs such a program */
bool peer_test_init(int *argc, char ***argv);

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

/* Remove a directory, with what such programs leave in it */
void peer_remove_dir(const char *path);

#endif
