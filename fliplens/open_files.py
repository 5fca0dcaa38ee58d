"""How many files a process may have open: a folder of many parts needs one each while it is mapped."""

from __future__ import annotations

from fliplens.errors import InputError

__all__ = ["allow_open_files"]

SPARE = 256
"""Files that everything else may need."""


def allow_open_files(count: int, *, what: str) -> None:
    """Raise this process's soft limit on open files, where `count` more need it.

    Many systems set it to 1024, far below what they allow those who ask.

    Args:
        count: files that are to be open at once.
        what: what they are, for the message.

    Raises:
        InputError: the system allows fewer.
    """
    try:
        import resource
    except ImportError:  # no such limit on this system
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise InputError(
            f"expected to be allowed {needed} open files for {what}, found a limit of {hard}: raise it (ulimit -n), "
            "or write one .npy file instead of a folder"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
