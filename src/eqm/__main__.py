"""The program `eqm`; `python -m eqm` is the same."""

import os
import signal
import sys


def run() -> int:
    """The exit status of the program: that of `eqm.cli.main.main`.

    While it starts and ends, signals end it at once, without a traceback. In between they raise
    KeyboardInterrupt, so that a command can leave its files in order.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed by the shell: a file that is opened later must not take its place
            os.open(os.devnull, os.O_RDWR)
    signals = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    caught = [each for each in signals if each and signal.getsignal(each) != signal.SIG_IGN]
    for each in caught:
        signal.signal(each, signal.SIG_DFL)
    from eqm.cli.main import main, stop

    for each in caught:
        signal.signal(each, stop)
    try:
        return main()
    finally:
        for each in caught:
            signal.signal(each, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(run())
