"""The command line: flags in, one library call, a table or JSON out.

stdout carries results and nothing else; progress, warnings and errors go to stderr, one line each. Exit status:
0 done, 1 the work failed, 2 the call or its input was wrong, 130 interrupted; a `fit` or `encode` that SIGTERM ends
leaves with 143, so that who manages jobs can tell the two apart.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import TextIO

from fliplens.cli.signals import Terminated
from fliplens.devices import set_threads
from fliplens.errors import FliplensError
from fliplens.progress import say

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that lacks a letter shows ? for it in a table; JSON escapes it.
        sys.stdout.reconfigure(errors="replace")
    with warnings.catch_warnings():
        # One line each, without the source line that caused it.
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            from fliplens.cli.parser import parse

            args = parse(argv)
            if args.threads is not None:
                # Read by the libraries when they are loaded, so before any of them is.
                for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
                    os.environ[name] = str(args.threads)
            set_threads(args.threads)
            status: int = args.run(args)
            sys.stdout.flush()
            return status
        except FliplensError as error:
            return _fail(str(error), error.exit_status)
        except KeyboardInterrupt as error:
            status = 143 if isinstance(error, Terminated) else 130
            return _fail("interrupted; nothing is half written: run the same command again", status)
        except BrokenPipeError:
            # The reader of our output (head, say) has left: not an error of ours; keep Python from flushing again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            reason = error.strerror or type(error).__name__
            return _fail(f"expected to read and write files, found: {reason}{place}; nothing was half written", 1)
        except (MemoryError, RuntimeError) as error:
            # torch reports a failed allocation as a RuntimeError; any other one is a defect to be seen whole.
            if isinstance(error, RuntimeError) and not re.search("out of memory|allocate", str(error)):
                raise
            return _fail("expected enough memory for this job, found too little: use fewer rows or words", 1)


def _fail(message: str, status: int) -> int:
    # Of several processes that train together each says what ended it; its number tells them apart.
    who = "" if _rank() == "0" else f"process {_rank()}: "
    sys.stderr.write(f"fliplens: {who}{' '.join(message.split())}\n")
    return status


def _rank() -> str:
    """Return the number of this process among those that torchrun started; 0 if it is alone."""
    return os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0"


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show_warning(
    message: Warning | str,
    _category: type[Warning],
    _filename: str,
    _lineno: int,
    _file: TextIO | None = None,
    _line: str | None = None,
) -> None:
    # All processes read the same data; one of them is enough to warn about it.
    if _rank() == "0":
        say(f"warning: {' '.join(str(message).split())}")
