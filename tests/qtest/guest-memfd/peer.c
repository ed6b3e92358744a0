/*
 * Programs that a VM shares its memory with
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/prctl.h>
#include "peer.h"
#include "vm.h"

#define PEER_COMMAND "GUEST_MEMFD_PEER"


struct Peer {
    GPid pid;
    int in;                     /* what it reads */
    FILE *out;                  /* what it writes */
};

const char *peer_command(void)
{
    return getenv(PEER_COMMAND);
}

bool peer_test_init(int *argc, char ***argv)
{
    if (!vm_test_init(argc, argv)) {
        return false;
    }
    if (!peer_command()) {
        printf("1..0 # SKIP " PEER_COMMAND " names no program\n");
        return false;
    }
    return true;
}

static void die_with_parent(gpointer data)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static char *replace(const char *text, const char *word, const char *with)
{
    g_auto(GStrv) parts = g_strsplit(text, word, 0);

    return g_strjoinv(with, parts);
}

Peer *peer_start(const char *template, const char *socket, const char *share)
{
    g_autofree char *half = replace(template, "@socket", socket);
    g_autofree char *command = replace(half, "@share", share);
    g_auto(GStrv) argv = NULL;
    Peer *peer = g_new0(Peer, 1);
    g_autoptr(GError) error = NULL;
    int out;

    g_test_message("starting %s", command);
    unlink(socket);
    g_assert_true(g_shell_parse_argv(command, NULL, &argv, &error));
    g_spawn_async_with_pipes(NULL, argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD |
                             G_SPAWN_SEARCH_PATH, die_with_parent, NULL,
                             &peer->pid, &peer->in, &out, NULL, &error);
    g_assert_no_error(error);
    peer->out = fdopen(out, "r");
    VM_WAIT(waitpid(peer->pid, NULL, WNOHANG) || vm_socket_listens(socket));
    g_assert_cmpint(waitpid(peer->pid, NULL, WNOHANG), ==, 0);
    return peer;
}

char *peer_ask(Peer *peer, const char *fmt, ...)
{
    g_autofree char *line = NULL;
    char *answer = NULL;
    size_t size = 0;
    va_list ap;

    va_start(ap, fmt);
    line = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_assert_cmpint(dprintf(peer->in, "%s\n", line), >, 0);
    g_assert_cmpint(getline(&answer, &size, peer->out), >, 0);
    g_strchomp(answer);
    return answer;
}

void peer_kill(Peer *peer)
{
    kill(peer->pid, SIGKILL);
    g_assert_cmpint(waitpid(peer->pid, NULL, 0), ==, peer->pid);
    close(peer->in);
    fclose(peer->out);
    g_free(peer);
}

void peer_remove_dir(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    g_assert(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        unlink(file);
    }
    g_assert_cmpint(rmdir(path), ==, 0);
}
