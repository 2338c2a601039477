"""The month of a day, in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class month_of_day(FunctionElement[int]):
    """The month of days since 1970, as 202611: the same as `budget.month_of`."""

    type = Integer()
    inherit_cache = True


@compiles(month_of_day, "sqlite")
def _on_sqlite(element: month_of_day, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(strftime('%Y%m', {compiler.process(element.clauses, **options)} * 86400, 'unixepoch') AS INTEGER)"


@compiles(month_of_day, "postgresql")
def _on_postgresql(element: month_of_day, compiler: SQLCompiler, **options: Any) -> str:
    seconds = f"{compiler.process(element.clauses, **options)} * 86400::bigint"
    return f"CAST(to_char(to_timestamp({seconds}) AT TIME ZONE 'UTC', 'YYYYMM') AS integer)"
