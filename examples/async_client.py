"""Rank for many queries at once with asyncio.

RERANKD_URL=http://127.0.0.1:8000 python examples/async_client.py
"""

from __future__ import annotations

import asyncio

from rerankd import AsyncClient

DOCUMENTS = [
    "Beijing is the capital of China.",
    "Water boils at 100 °C at sea level.",
    "Berlin is the capital of Germany.",
]
QUERIES = ["capital of Germany", "At what temperature does water boil?", "capital of China"]


async def main() -> None:
    async with AsyncClient() as client:
        rankings = await asyncio.gather(*(client.rank(query, DOCUMENTS, top_n=1) for query in QUERIES))
    for query, ranking in zip(QUERIES, rankings, strict=True):
        print(f"{query}: {ranking[0].document} ({ranking[0].score:.3f})")


if __name__ == "__main__":
    asyncio.run(main())
