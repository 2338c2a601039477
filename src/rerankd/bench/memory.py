"""The resident memory of another process, from Linux's /proc."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from rerankd.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Memory:
    """GB (10⁹ bytes) of one process without its children, including the resident pages of mapped files.

    start, end: before the first request and after the last one. tenths: the mean of each tenth of the requests, to
    detect growth. peak: since the process started, including loading.
    """

    start_gb: float
    end_gb: float
    peak_gb: float
    tenths_gb: Sequence[float]


class MemoryWatch:
    """Records the memory of a process on request.

    Raises:
        SettingsError: the process does not exist, or the system has no /proc.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._resident: list[float] = []
        try:
            _, self._peak = self._read()
        except (OSError, LookupError) as error:
            raise SettingsError(f"The memory of process {pid} cannot be read (it takes Linux): {error}.") from error

    def look(self) -> None:
        """Records the current memory; nothing if the process has ended."""
        with suppress(OSError, LookupError):
            resident, self._peak = self._read()
            self._resident.append(resident)

    def result(self) -> Memory | None:
        """The result, with the first record as the start; None without records."""
        if not self._resident:
            return None
        start, *during = self._resident
        bounds = [tenth * len(during) // 10 for tenth in range(11)]
        tenths = [fmean(during[begin:end]) for begin, end in pairwise(bounds) if end > begin]
        return Memory(start, self._resident[-1], self._peak, tenths)

    def _read(self) -> tuple[float, float]:
        """(now, peak) in GB."""
        fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        return _gigabytes(fields["VmRSS"]), _gigabytes(fields["VmHWM"])


def _gigabytes(field: str) -> float:
    kibibytes = int(field.split()[0])
    return kibibytes * 1024 / 1e9
