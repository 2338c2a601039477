"""The order of results: files first, and both stages together where the model is small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rerankd.search.order import files_first, mixed, shown_order


def test_the_best_part_of_each_file_comes_first() -> None:
    assert files_first([3, 0, 2, 1], ["a", "b", "b", "a"]) == [3, 2, 0, 1]
    assert files_first([1, 0], ["a", "a"]) == [1, 0]


def test_reciprocal_ranks_are_added() -> None:
    # 0: 1/61 + 1/63, 1: 1/62 + 1/62, 2: 1/63 + 1/61
    assert mixed([2, 1, 0]) == [2, 0, 1]
    assert mixed([5, 0]) == [0, 5]  # the model ranked two parts of six: 1/61 + 1/62 before 1/66 + 1/61


def test_a_reranker_decides_alone() -> None:
    assert shown_order([2, 1, 0], ["a", "b", "c"], "Qwen/Qwen3-Reranker-0.6B") == [2, 1, 0]
    assert shown_order([2, 1, 0], ["a", "b", "c"], "embedded-multilingual") == [2, 0, 1]


@given(st.permutations(range(12)), st.lists(st.sampled_from("abc"), min_size=12, max_size=12))
def test_nothing_is_lost(ranked: list[int], paths: list[str]) -> None:
    for model in ("embedded-multilingual", "other"):
        order = shown_order(ranked, paths, model)
        files = len(set(paths))
        assert sorted(order) == sorted(ranked) and len({paths[place] for place in order[:files]}) == files
