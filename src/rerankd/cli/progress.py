"""Progress bars on stderr, shown only on a terminal."""

from __future__ import annotations

import time
from importlib import import_module
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

SHOW_AFTER_S = 1.0


def duration(seconds: float) -> str:
    """A time as people say it: 40 s, 12 min, 3.5 h, 2.5 days."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86_400
    if days >= 2:
        return f"{days:.1f} days"
    if hours >= 2:
        return f"{hours:.1f} h"
    return f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


class LoadingBar:
    """Call it with the current stage and the share that is done, in [0, 1].

    Args:
        show_after_s: seconds before the bar appears.
    """

    def __init__(self, show_after_s: float = SHOW_AFTER_S) -> None:
        self._show_after_s = show_after_s
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._started = time.monotonic()
        self._task: TaskID | None = None

    def __enter__(self) -> LoadingBar:
        return self

    def __call__(self, stage: str, share: float) -> None:
        if self._task is None:
            if time.monotonic() - self._started < self._show_after_s or not self._progress.console.is_terminal:
                return
            self._progress.start()
            self._task = self._progress.add_task(stage, total=1.0)
        self._progress.update(self._task, description=stage, completed=share)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._progress.stop()


def load_pytorch() -> None:
    """Imports what loads and runs models, behind a bar: it takes seconds.

    Raises:
        ImportError: a package is not installed.
    """
    with LoadingBar(show_after_s=0) as bar:
        bar("loading PyTorch", 0.0)
        import_module("rerankd.startup")
