#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test guest-memfd-top: what it makes of answers, and that no VM can stop it.

Its figures beside those of real guests are tests/nested's business (top/two-vms).
"""

import contextlib
import errno
import fcntl
import importlib.machinery
import importlib.util
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))
import tap

TOOL = Path(__file__).resolve().parents[2] / 'contrib/guest-memfd/guest-memfd-top'
MANUAL = TOOL.parents[2] / 'docs/tools/guest-memfd-top.rst'
MIB = 1 << 20
GIB = 1 << 30
LONG_ENOUGH = 300       # seconds, for what must happen

# As QEMU 10.0.13 says it
GREETING = (b'{"QMP": {"version": {"qemu": {"micro": 13, "minor": 0, "major": 10}, '
            b'"package": "guest-memfd"}, "capabilities": ["oob"]}}\r\n')
DONE = b'{"return": {}}\r\n'
NAME = b'{"return": {"name": "web"}}\r\n'
EVENT = b'{"timestamp": {"seconds": 1795604684, "microseconds": 870068}, "event": "RESUME"}\r\n'
UNKNOWN = (b'{"error": {"class": "CommandNotFound", "desc": "The command query-guest-memfd has '
           b'not been found"}}\r\n')
BACKEND = {'id': 'ram0', 'size': GIB, 'kvm-bind': 'auto', 'bound': 1073610752, 'mapped': 0,
           'allocated': 2097152, 'switches': 0, 'max-inhibit-us': 0}
REPLY = json.dumps({'return': [{**BACKEND, 'slots': [
    {'address-space': 0, 'memslots': 1, 'gpa': 0, 'size': 655360, 'offset': 0,
     'state': 'bound'}]}]}).encode() + b'\r\n'
WEB = [GREETING, DONE, NAME, REPLY]


def load_tool():
    loader = importlib.machinery.SourceFileLoader('top', str(TOOL))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('top', loader))
    loader.exec_module(module)
    return module


def backend(**figures):
    return {**BACKEND, **{name.replace('_', '-'): value for name, value in figures.items()}}


class Server:
    """A socket that says one thing after each line it hears, and then hangs up."""

    def __init__(self, path, says):
        self.says = says
        self.clients = 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.socket.accept()
                self.clients += 1
                # One that leaves early is welcome to do so
                with client, contextlib.suppress(OSError):
                    self.talk(client)

    def talk(self, client):
        lines = client.makefile('rb')
        first, *others = self.says or [None]
        if first:
            client.sendall(first)
        for answer in others:
            if not lines.readline():
                return
            client.sendall(answer)

    def close(self):
        # Ends accept(), too
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(LONG_ENOUGH)


class Command(unittest.TestCase):
    def setUp(self):
        self.top = Path(tempfile.mkdtemp(prefix='top-test.'))
        self.addCleanup(shutil.rmtree, self.top)

    def serve(self, name, says):
        server = Server(self.top / name, says)
        self.addCleanup(lambda: server.socket.fileno() < 0 or server.close())
        return server

    def path(self, name):
        return str(self.top / name)

    def run_tool(self, *args, **kwargs):
        return subprocess.run([sys.executable, str(TOOL), *args], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=LONG_ENOUGH, **kwargs)

    def start(self, *args, **kwargs):
        process = subprocess.Popen([sys.executable, str(TOOL), *args], **kwargs)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def ask(self, *args, status=0, timeout=LONG_ENOUGH):
        """What --json says."""
        result = self.run_tool('--json', '--timeout', str(timeout), *args)
        self.assertEqual((result.stderr, result.returncode), ('', status), result.stdout)
        return json.loads(result.stdout)

    def refused(self, says, sentence):
        """A VM that says this, and beside it one in order."""
        self.serve('bad', says)
        self.serve('good', WEB)
        self.check_refused(sentence)

    def check_refused(self, sentence):
        report = self.ask(self.path('bad'), self.path('good'), status=1)
        bad, good = report['vms']
        self.assertIn(sentence, bad['error'])
        self.assertNotIn('\n', bad['error'])
        self.assertEqual((bad['socket'], bad['size'], bad['backends']),
                         (self.path('bad'), None, []))
        self.assertEqual((good['name'], good['error'], good['size']), ('web', None, GIB))
        self.assertEqual(report['total']['vms'], 1)


class SocketTest(Command):
    def test_all_that_json_has(self):
        self.serve('web', WEB)
        figures = {name: BACKEND[name] for name in tool.FIGURES}
        self.assertEqual(self.ask(self.path('web')), {
            'vms': [{'name': 'web', 'socket': self.path('web'), 'uuid': None, 'error': None,
                     **figures, 'backends': [BACKEND]}],
            'total': {'vms': 1, **figures}})

    def test_events_and_pieces(self):
        """An event before each answer, and a byte at a time."""
        self.serve('web', [GREETING, EVENT + DONE, EVENT + EVENT + NAME, EVENT + REPLY])
        self.assertEqual(self.ask(self.path('web'))['vms'][0]['backends'], [BACKEND])

    def test_leaves_after_each_question(self):
        """Of two questions by two programs one after the other, both are answered."""
        server = self.serve('web', [*WEB, b''])
        for _ in range(2):
            self.ask(self.path('web'))
        self.assertEqual(server.clients, 2)

    def test_without_a_name_the_socket_is_the_name(self):
        self.serve('web', [GREETING, DONE, DONE, REPLY])
        self.assertEqual(self.ask(self.path('web'))['vms'][0]['name'], self.path('web'))

    def test_qemu_without_the_command(self):
        self.serve('web', [GREETING, DONE, NAME, UNKNOWN])
        vm, = self.ask(self.path('web'))['vms']
        self.assertEqual((vm['error'], vm['size'], vm['backends']), (None, 0, []))
        result = self.run_tool('--once', self.path('web'))
        self.assertEqual((result.returncode, result.stdout),
                         (0, 'no RAM on a guest_memfd: web\n'))

    def test_command_that_fails(self):
        self.refused([GREETING, DONE, NAME,
                      b'{"error": {"class": "GenericError", "desc": "no luck"}}\r\n'],
                     'QEMU says: no luck')

    def test_no_socket(self):
        self.serve('good', WEB)
        self.check_refused('no such socket')

    def test_nobody_listens(self):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(self.path('bad'))
        self.serve('good', WEB)
        self.check_refused('nobody listens')

    def test_path_that_is_too_long(self):
        self.assertIn('too long', self.ask('/' + 'x' * 200, status=1)['vms'][0]['error'])

    def test_another_client_is_connected(self):
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(self.path('bad'))
            busy.listen()
            vm, = self.ask(self.path('bad'), status=1, timeout=1)['vms']
            self.assertIn('no greeting within 1 s: another client is connected', vm['error'])

    def test_too_many_clients(self):
        with contextlib.ExitStack() as stack:
            busy = stack.enter_context(socket.socket(socket.AF_UNIX))
            busy.bind(self.path('bad'))
            busy.listen(0)
            try:
                while True:
                    client = stack.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    client.connect(self.path('bad'))
            except BlockingIOError:
                pass
            self.serve('good', WEB)
            self.check_refused('too many clients')

    def test_hangs_up_at_once(self):
        self.refused([], 'closed the connection')

    def test_dies_in_the_middle(self):
        for says in ([GREETING], [GREETING[:20]], WEB[:2], WEB[:3],
                     [GREETING, DONE, NAME, REPLY[:-20]]):
            with self.subTest(says), tempfile.TemporaryDirectory(dir=self.top) as directory:
                self.serve(f'{directory}/vm', says)
                vm, = self.ask(f'{directory}/vm', status=1)['vms']
                self.assertIn('closed the connection', vm['error'])
                self.assertEqual(vm['name'], 'web' if len(says) > 2 else f'{directory}/vm')

    def test_never_answers(self):
        """It says something all the time, but no answer."""
        class Talker(Server):
            def talk(self, client):
                super().talk(client)
                while True:
                    client.sendall(EVENT)
        talker = Talker(self.top / 'vm', [GREETING, DONE])
        self.addCleanup(talker.close)
        with tool.Monitor(self.path('vm'), LONG_ENOUGH) as monitor:
            monitor.end = time.monotonic() + 1
            with self.assertRaises(TimeoutError):
                monitor.ask('query-name')

    def test_human_monitor(self):
        self.refused([b'QEMU 10.0.13 monitor - type \'help\' for more information\r\n(qemu) '],
                     'is this a QMP socket?')

    def test_another_protocol_in_json(self):
        self.refused([b'{"return": {}}\r\n'], 'is this a QMP socket?')

    def test_garbage(self):
        for says in ([b'\xff\xfe\0\n'], [b'[' * 100000 + b'\n'], [b'[]\n'],
                     [GREETING, b'{"error": 7}\n'], [GREETING, DONE, NAME, b'}\n']):
            with self.subTest(says[-1][:20]), \
                    tempfile.TemporaryDirectory(dir=self.top) as directory:
                self.serve(f'{directory}/vm', says)
                self.assertIn('is this a QMP socket?',
                              self.ask(f'{directory}/vm', status=1)['vms'][0]['error'])

    def test_line_without_end(self):
        self.refused([b'x' * (tool.LONGEST_LINE + MIB)], 'has no end')

    def test_answer_of_another_version(self):
        older = {name: value for name, value in BACKEND.items() if name != 'allocated'}
        self.refused([GREETING, DONE, NAME,
                      json.dumps({'return': [older]}).encode() + b'\n'], 'has no allocated')


class EndTest(Command):
    """While it refreshes."""

    def test_vm_that_goes_away(self):
        """The other stays; Ctrl-C is the end, and a good one."""
        self.serve('stays', WEB)
        goes = self.serve('goes', [GREETING, DONE, b'{"return": {"name": "mail"}}\n', REPLY])
        process = self.start('--interval', '0.1', self.path('stays'), self.path('goes'), text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in process.stdout:
            if line.startswith('mail'):
                break
        goes.close()
        for line in process.stdout:
            if 'may have ended' in line:
                break
        self.assertTrue(line.startswith(self.path('goes')), line)
        # Whole reports go on to come, with the other VM
        lines = iter(process.stdout.readline, '')
        self.assertTrue(any(line.startswith('bar:') for line in lines))
        self.assertTrue(any(line.startswith('web ') for line in lines))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LONG_ENOUGH)
        self.assertEqual((process.returncode, said), (0, ''))

    def test_ctrl_c_before_the_answer(self):
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(self.path('busy'))
            busy.listen()
            process = self.start('--json', '--timeout', str(LONG_ENOUGH * 10), self.path('busy'),
                                 text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            client, _ = busy.accept()
            with client:
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.communicate(timeout=LONG_ENOUGH), ('', ''))
            self.assertEqual(process.returncode, 130)

    def test_reader_that_leaves(self):
        self.serve('web', WEB)
        process = self.start('--interval', '0.1', self.path('web'), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        process.stdout.read(10)
        process.stdout.close()
        self.assertEqual((process.stderr.read(), process.wait(LONG_ENOUGH)), (b'', 0))
        process.stderr.close()


class ScreenTest(Command):
    def screen(self, *args, terminal='xterm'):
        """The program on a terminal of its own, and the terminal's other end."""
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
        # A session of its own, to which this terminal sends its Ctrl-C
        process = subprocess.Popen(['setsid', '--ctty', sys.executable, str(TOOL), '--interval',
                                    '0.1', *args], stdin=its, stdout=its, stderr=its,
                                   env={**os.environ, 'TERM': terminal})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        os.close(its)
        self.addCleanup(os.close, ours)
        self.shown = b''
        return process, ours

    def read(self, terminal):
        ready, _, _ = select.select([terminal], [], [], LONG_ENOUGH)
        self.assertTrue(ready, self.shown)
        try:
            return os.read(terminal, 4096)
        except OSError:     # the program has ended
            return b''

    def wait_for(self, terminal, words):
        while words not in self.shown:
            got = self.read(terminal)
            self.assertTrue(got, self.shown)
            self.shown += got

    def end(self, process, terminal):
        """It leaves the terminal as it was: no longer its second page."""
        while got := self.read(terminal):
            self.shown += got
        self.assertIn(b'\x1b[?1049l', self.shown)
        return process.wait(LONG_ENOUGH)

    def test_quit_and_signals(self):
        self.serve('web', WEB)
        for end, status in ((lambda process, terminal: os.write(terminal, b'q'), 0),
                            (lambda process, terminal: os.write(terminal, b'\x03'), 0),
                            (lambda process, terminal: process.terminate(), 143)):
            process, terminal = self.screen(self.path('web'))
            self.wait_for(terminal, b'web')
            self.wait_for(terminal, b'total')
            end(process, terminal)
            self.assertEqual(self.end(process, terminal), status, self.shown)

    def test_vm_that_goes_away(self):
        server = self.serve('web', WEB)
        process, terminal = self.screen(self.path('web'))
        self.wait_for(terminal, b'total')
        server.close()
        self.wait_for(terminal, b'may have ended')
        os.write(terminal, b'q')
        self.assertEqual(self.end(process, terminal), 0)

    def test_quits_while_a_vm_is_silent(self):
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(self.path('busy'))
            busy.listen()
            process, terminal = self.screen('--timeout', str(LONG_ENOUGH * 10), self.path('busy'))
            client, _ = busy.accept()
            os.write(terminal, b'q')
            self.assertEqual(self.end(process, terminal), 0)
            client.close()

    def test_unknown_terminal(self):
        process, terminal = self.screen(self.path('web'), terminal='nonsense')
        self.wait_for(terminal, b"the terminal 'nonsense' is unknown: use --once")
        self.assertEqual(process.wait(LONG_ENOUGH), 2)


class LibvirtTest(Command):
    """Where libvirt gives no answer; where it does is tests/libvirt's business."""

    def error(self, *args, **kwargs):
        result = self.run_tool('--json', '--timeout', str(LONG_ENOUGH), *args, **kwargs)
        self.assertEqual((result.stderr, result.returncode), ('', 1))
        vm, = json.loads(result.stdout)['vms']
        self.assertNotIn('\n', vm['error'])
        return vm

    def test_no_virsh(self):
        vm = self.error('--libvirt', env={'PATH': '/nonexistent'})
        self.assertEqual(vm['name'], 'libvirt')
        self.assertIn('there is no virsh', vm['error'])

    @unittest.skipUnless(shutil.which('virsh'), 'no virsh here')
    def test_no_daemon(self):
        vm = self.error('--libvirt', f'qemu+unix:///system?socket={self.path("nobody")}')
        self.assertIn('failed to connect to the hypervisor; ', vm['error'])

    @unittest.skipUnless(shutil.which('virsh'), 'no virsh here')
    def test_vm_without_a_monitor(self):
        vm = self.error('--libvirt', 'test:///default')
        self.assertEqual((vm['name'], vm['uuid'], vm['socket']),
                         ('test', '6695eb01-f6a4-8304-79aa-97f2502e193f', None))
        self.assertIn('not supported', vm['error'])


class CallTest(Command):
    def test_called_wrongly(self):
        for args, words in (([], 'which VMs'), (['--interval', '0', 's'], '0.1 or more'),
                            (['--timeout', 'nan', 's'], '0.1 or more'),
                            (['--nonsense', 's'], '--nonsense'),
                            (['--libvirt', '/run/vm.qmp'], 'is no URI; name sockets before it')):
            result = self.run_tool(*args)
            self.assertEqual((result.returncode, result.stdout), (2, ''), args)
            self.assertIn(words, result.stderr)
            self.assertEqual(result.stderr.count('\n'), 1, result.stderr)

    def test_crash_is_no_status_of_a_vm(self):
        with open('/dev/full', 'w') as full:
            result = subprocess.run([sys.executable, str(TOOL), '--once', self.path('none')],
                                    stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 2)
        self.assertIn('OSError', result.stderr)

    def test_name_that_cannot_be_printed(self):
        self.serve('web', [GREETING, DONE, '{"return": {"name": "v\N{EURO SIGN}m"}}\n'.encode(),
                           REPLY])
        result = self.run_tool('--once', self.path('web'),
                               env={**os.environ, 'PYTHONIOENCODING': 'ascii:strict'})
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        self.assertIn('\nv?m ', result.stdout)


class ParseTest(unittest.TestCase):
    def test_good(self):
        more = {**BACKEND, 'slots': [], 'news': 1}
        for reply, wanted in ([], []), ([BACKEND], [BACKEND]), ([more, BACKEND], [BACKEND] * 2):
            self.assertEqual(tool.parse(reply), wanted)

    def test_bad(self):
        for reply in (None, {}, 'text', [7], [[]], [{}], [backend(size=None)],
                      [backend(size='1')], [backend(bound=-1)], [backend(switches=True)],
                      [backend(max_inhibit_us=1.5)]):
            with self.subTest(reply), self.assertRaises(tool.Trouble):
                tool.parse(reply)

    def test_list_of_domains(self):
        for text, wanted in (('', []), ('\n', []), ('u1 web\n\n', [['u1', 'web']]),
                             ('u1   a b  \nu2 c\n', [['u1', 'a b'], ['u2', 'c']])):
            self.assertEqual(tool.parse_list(text), wanted)

    def test_errors_of_the_system(self):
        for error, words in ((OSError(errno.EACCES, 'x'), 'permission denied'),
                             (OSError(errno.EIO, 'odd'), 'odd'), (OSError('text'), 'text'),
                             (TimeoutError(), 'within 3 s'),
                             (BrokenPipeError(), 'closed'), (tool.Trouble('own'), 'own')):
            self.assertIn(words, tool.sentence(error, 3))


class SumsTest(unittest.TestCase):
    def test_sums(self):
        one = backend(allocated=1, bound=2, mapped=3, switches=4, max_inhibit_us=7)
        two = backend(allocated=10, bound=20, mapped=30, switches=40, max_inhibit_us=5)
        self.assertEqual(tool.sums([one, two]),
                         {'size': 2 * GIB, 'allocated': 11, 'bound': 22, 'mapped': 33,
                          'switches': 44, 'max-inhibit-us': 7})
        self.assertEqual(tool.sums([]), dict.fromkeys(tool.FIGURES, 0))

    def test_status(self):
        good, bad = tool.vm('a', []), tool.vm('b', error='no')
        for vms, status in ([], 0), ([good], 0), ([good, bad], 1), ([bad], 1):
            self.assertEqual(tool.status(vms), status)

    def test_unanswered_has_no_figures_and_is_in_no_sum(self):
        vms = [tool.vm('a', [backend()]), tool.vm('b', error='no')]
        self.assertEqual({vms[1][name] for name in tool.FIGURES}, {None})
        total = json.loads(tool.as_json(vms))['total']
        self.assertEqual((total['vms'], total['size']), (1, GIB))


class LookTest(unittest.TestCase):
    def test_human(self):
        for size, wanted in ((0, '0'), (1023, '1023'), (1024, '1.0K'), (1536, '1.5K'),
                             (1073610752, '1023.9M'), (GIB - 1, '1.0G'), (GIB, '1.0G'),
                             (1 << 50, '1.0P'), (1 << 63, '8.0E')):
            self.assertEqual(tool.human(size), wanted)

    def test_duration(self):
        for us, wanted in ((0, '0'), (1, '1us'), (999, '999us'), (1000, '1.0ms'),
                           (123456, '123.5ms'), (1000000, '1.0s'), (72000000, '72.0s')):
            self.assertEqual(tool.duration(us), wanted)

    def test_bar(self):
        for size, allocated, bound, wanted in (
                (100, 0, 0, '..........'), (100, 100, 100, '##########'),
                (100, 30, 100, '###-------'), (100, 30, 0, '+++.......'),
                (100, 80, 50, '#####+++..'), (100, 20, 50, '##---.....'),
                # A little is not nothing; what a PC's ROMs hide does not show
                (GIB, 4096, 0, '+.........'), (GIB, 4096, 1073610752, '#---------'),
                # Nothing that a QEMU says breaks the line
                (0, 0, 0, '..........'), (0, 5, 5, '..........'), (10, 99, 99, '##########')):
            self.assertEqual(tool.bar(10, size, allocated, bound), wanted)

    def test_printable(self):
        for text, wanted in (('web 1', 'web 1'), ('a\x1b[2Jb', 'a?[2Jb'), ('a\nb', 'a?b'),
                             ('\udcff', '?'), ('\xe9', '\xe9')):
            self.assertEqual(tool.printable(text), wanted)

    def test_report(self):
        vms = [tool.vm('small', [backend(allocated=MIB)]),
               tool.vm('gone', error='why'), tool.vm('none', []),
               tool.vm('large', [backend(allocated=256 * MIB, bound=0, mapped=GIB, switches=3,
                                         max_inhibit_us=1500), backend(allocated=0)])]
        self.assertEqual(tool.report(vms, 80), [
            'NAME   SIZE  ALLOCATED    BOUND  MAPPED  SWITCHES   STOP',
            'large  2.0G     256.0M  1023.9M    1.0G         3  1.5ms  [##--------..........]',
            'small  1.0G       1.0M  1023.9M       0         0      0  [#-------------------]',
            'gone: why',
            'no RAM on a guest_memfd: none',
            'total  3.0G     257.0M     2.0G    1.0G         3  1.5ms  [##-----------.......]',
            'bar: # + is allocated, # - is bound'])

    def test_manual(self):
        """Its picture is what is printed, and all options are in it."""
        manual = MANUAL.read_text(encoding='utf-8')
        vms = [tool.vm('web', [backend(allocated=256 * MIB)]),
               tool.vm('/run/a', error=tool.sentence(ConnectionRefusedError(
                   errno.ECONNREFUSED, ''), 1)),
               tool.vm('db', [backend(allocated=832 * MIB),
                              backend(allocated=832 * MIB, bound=0, mapped=GIB, switches=3,
                                      max_inhibit_us=1500)])]
        self.assertIn('\n\n' + ''.join(f'  {line}\n' for line in tool.report(vms, 81)), manual)
        with contextlib.redirect_stdout(io.StringIO()) as said, self.assertRaises(SystemExit):
            tool.parse_arguments(['--help'])
        options = set(re.findall(r'--[a-z]+', said.getvalue()))
        self.assertGreaterEqual(options, {'--json', '--libvirt'})
        for option in options:
            self.assertIn(option, re.findall(r'^\.\. option:: .*?(--[a-z]+)', manual, re.M))

    def test_long_name_leaves_the_figures_in_sight(self):
        head, line, *_ = tool.report([tool.vm('x' * 200, [backend()])], 80)
        self.assertLessEqual(len(line), 100)
        self.assertIn('~', line)
        self.assertEqual(line.index('1.0G') + 4, head.index('SIZE') + 4)

    def test_no_vm(self):
        self.assertEqual(tool.report([], 80), ['no VM'])

    def test_page_fits(self):
        vms = [tool.vm(f'vm{n}', [backend()]) for n in range(50)]
        vms += [tool.vm('gone', error='why ' * 100)]
        for height in (1, 2, 3, 4, 5, 24, 53, 54, 55, 100):
            for width in 1, 20, 79, 200:
                page = tool.page(vms, 'title', width, height)
                self.assertLessEqual(len(page), height)
                self.assertLessEqual(max(map(len, page)), width)
                if height >= 4 and width >= 79:
                    self.assertTrue(page[-2].startswith('total'), page)
                    self.assertEqual(any('more' in line for line in page), height < 55, page)

    def test_page_before_the_first_answer(self):
        self.assertEqual(tool.page(None, 'title', 80, 24), ['title', 'asking'])
        self.assertEqual(tool.page([], 'title', 80, 24), ['title', 'no VM'])


class ParallelTest(unittest.TestCase):
    def test_results_are_in_order(self):
        functions = [lambda n=n: n for n in range(3 * tool.ASKED_AT_ONCE)]
        self.assertEqual(tool.in_parallel(functions), list(range(len(functions))))
        self.assertEqual(tool.in_parallel([]), [])

    def test_many_wait_at_the_same_time(self):
        barrier = threading.Barrier(tool.ASKED_AT_ONCE)
        tool.in_parallel([lambda: barrier.wait(LONG_ENOUGH)] * tool.ASKED_AT_ONCE)

    def test_fault_of_the_program_is_not_hidden(self):
        with self.assertRaises(ZeroDivisionError):
            tool.in_parallel([lambda: 1, lambda: 1 // 0])


if __name__ == '__main__':
    tool = load_tool()
    tap.main()
