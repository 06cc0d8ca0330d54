"""What Gunicorn's hooks do for an app: checks as it boots, and words that help where it fails."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

RUN = Path(os.environ.get("RUNTIME_DIRECTORY", "/nonexistent"))
# A line for each worker that has imported the app; systemd removes the folder with the slot.
BOOTED = RUN / "booted"
# How many workers there will be, for a run that waits for them.
WORKERS = RUN / "workers"
# What the run tells the user, once the slot is ready.
WARNINGS = RUN / "warnings"
# Gunicorn gives up where a worker ends with this.
BOOT_ERROR = 3
# Seconds between two tries to import an app that was imported before.
PAUSE = 3.0
SQLITE = ("attempt to write a readonly database", "unable to open database file")


def check_framework(app: object, framework: str, entrypoint: str) -> None:
    """Refuse an app of the other framework: it would boot, and fail at each request.

    Args:
        app: What the app's module gave.
        framework: What apps.yml says: flask or tornado.
        entrypoint: What apps.yml says.

    Raises:
        TypeError: It is of the other one.
    """
    found = "a WSGI app"
    if importlib.util.find_spec("tornado"):
        from tornado.web import Application

        if isinstance(app, Application):
            found = "a tornado.web.Application"
    wanted = "a tornado.web.Application" if framework == "tornado" else "a WSGI app"
    if found != wanted:
        raise TypeError(f"apps.yml says framework: {framework}, but {entrypoint} is {found}")


def warn_of_threads(log: Any) -> None:
    """Warn of threads that the import has started in the master: no worker will have them.

    Args:
        log: Gunicorn's log.
    """
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if names:
        text = (
            f"the import started threads that no worker has, since preload is true: {', '.join(names)}."
            " Set preload: false, or start them at the first request"
        )
        log.warning("%s", text)
        WARNINGS.write_text(f"{text}\n", encoding="utf-8")


def count_workers(workers: int) -> None:
    """Leave word of how many workers there will be.

    Args:
        workers: Gunicorn's setting.
    """
    WORKERS.write_text(str(workers), encoding="utf-8")


def begin(worker: Any) -> None:
    """Prepare a worker that is about to import the app.

    One that takes the place of another may fail without an end to all: the others serve.

    Args:
        worker: Gunicorn's worker, in its own process.
    """
    # Once all have been up, a slot does not count them any more.
    worker.booted = len(_lines(BOOTED)) >= int(WORKERS.read_text(encoding="utf-8"))
    worker.paddock_up = False


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def imported(worker: Any) -> None:
    """Note that a worker has imported the app.

    Args:
        worker: Gunicorn's worker, in its own process.
    """
    worker.paddock_up = True
    if not worker.booted:
        with BOOTED.open("a", encoding="utf-8") as lines:
            lines.write(f"{worker.pid}\n")


def end(worker: Any) -> None:
    """End a worker; one that never imported the app ends all, or waits if others serve.

    Args:
        worker: Gunicorn's worker, in its own process.
    """
    if getattr(worker, "paddock_up", True) or not worker.alive:
        return
    if worker.booted:
        time.sleep(PAUSE)
    else:
        sys.stderr.flush()
        os._exit(BOOT_ERROR)  # whatever it ended with: sys.exit() at import, for one


def explain_read_only_files(release: Path) -> None:
    """Have tracebacks of an app that writes where it may not say where it may.

    Args:
        release: Folder of the release.
    """
    places = [f"{name} ({os.environ[name]})" for name in _PLACES if name in os.environ]
    hint = f"The release is read-only. Write below the folder that {' or '.join(places)} names, or to /tmp."
    make = logging.getLogRecordFactory()
    hook = sys.excepthook

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if record.exc_info and record.exc_info[1]:
            _explain(record.exc_info[1], release, hint)
        return record

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _explain(error, release, hint)
        if kind.__name__ == "HaltServer":
            # Gunicorn's own way to its end says nothing; what the workers have said stands above.
            print(error, file=sys.stderr)
        else:
            hook(kind, error, trace)

    logging.setLogRecordFactory(factory)
    sys.excepthook = uncaught


_PLACES = ("STATE_DIRECTORY", "CACHE_DIRECTORY")


def _explain(error: BaseException, release: Path, hint: str) -> None:
    for one in _chain(error):
        if _is_read_only(one, release) and hint not in getattr(one, "__notes__", []):
            one.add_note(hint)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_read_only(error: BaseException, release: Path) -> bool:
    if isinstance(error, OSError):
        if error.errno == errno.EACCES and isinstance(error.filename, str):
            return Path(error.filename).absolute().is_relative_to(release)
        return error.errno == errno.EROFS
    return type(error).__name__ == "OperationalError" and str(error).startswith(SQLITE)
