# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a module's unittest cases, reporting in TAP so that each case counts."""

import sys
import unittest


class TAPResult(unittest.TestResult):
    def line(self, word, test, note=''):
        print(f'{word} {self.testsRun} {test.id().split(".", 1)[1]}{note}', flush=True)

    def addSuccess(self, test):
        self.line('ok', test)

    def addSkip(self, test, reason):
        self.line('ok', test, f' # SKIP {reason}')

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.line('not ok', test)
        print(self.failures[-1][1], file=sys.stderr)

    def addError(self, test, err):
        super().addError(test, err)
        self.line('not ok', test)
        print(self.errors[-1][1], file=sys.stderr)


def run():
    """Whether all went well"""
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules['__main__'])
    print(f'1..{suite.countTestCases()}')
    return suite.run(TAPResult()).wasSuccessful()


def main():
    sys.exit(0 if run() else 1)
