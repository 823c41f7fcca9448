"""Panel: flat ragged series, picked and cut without a loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqlatent.forecasting.frames.panel import Future, Panel
from seqlatent.forecasting.time.index import TimeIndex

CLOCK = TimeIndex("integer", 1, 0, unit="")


def panel_of(lengths, seed=0):
    """A panel whose every value tells which row it came from."""
    lengths = np.asarray(lengths)
    rows = int(lengths.sum())
    value = np.arange(rows, dtype=float)
    n = len(lengths)
    return Panel(
        ids=np.array([f"s{i}" for i in range(n)], object),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        t=np.concatenate([10 * i + np.arange(k) for i, k in enumerate(lengths)]).astype(float),
        y=value[:, None],
        future=np.stack([value, -value], 1),
        past=np.zeros((rows, 0)),
        real=np.arange(n, dtype=float)[:, None],
        codes=np.arange(n)[:, None],
        row=np.random.default_rng(seed).permutation(rows),
        time_index=CLOCK,
    )


def as_lists(panel):
    """What each series holds: the slow, obviously right view."""
    return {
        panel.ids[i]: (
            panel.t[panel.series(i)].tolist(),
            panel.y[panel.series(i), 0].tolist(),
            panel.future[panel.series(i), 1].tolist(),
            panel.row[panel.series(i)].tolist(),
            panel.real[i, 0],
            panel.codes[i, 0],
        )
        for i in range(panel.batch)
    }


def cut(lists, part):
    return {id: (*(x[part] for x in rows[:4]), *rows[4:]) for id, rows in lists.items()}


LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@given(LENGTHS)
def test_sizes(lengths):
    panel = panel_of(lengths)
    assert panel.batch == len(lengths)
    assert panel.rows == sum(lengths)
    assert panel.lengths.tolist() == lengths
    assert panel.owner.tolist() == [i for i, k in enumerate(lengths) for _ in range(k)]
    assert panel.last.tolist() == [10 * i + k - 1 for i, k in enumerate(lengths)]


@given(LENGTHS, st.data())
def test_select_picks_whole_series_in_order(lengths, data):
    panel = panel_of(lengths)
    index = data.draw(st.lists(st.integers(0, len(lengths) - 1), unique=True))
    picked = panel.select(index)
    expected = as_lists(panel)
    assert picked.ids.tolist() == [f"s{i}" for i in index]
    assert as_lists(picked) == {f"s{i}": expected[f"s{i}"] for i in index}
    assert picked.rows == sum(lengths[i] for i in index)


def test_select_takes_slices_masks_and_repeats():
    panel = panel_of([2, 3, 1])
    assert panel.select(slice(1, None)).ids.tolist() == ["s1", "s2"]
    assert panel.select(np.array([True, False, True])).y[:, 0].tolist() == [0, 1, 5]
    assert panel.select(np.array([2, 2])).y[:, 0].tolist() == [5, 5]


@given(LENGTHS, st.integers(1, 7))
def test_tail_keeps_the_last_rows(lengths, n):
    panel = panel_of(lengths)
    assert as_lists(panel.tail(n)) == cut(as_lists(panel), slice(-n, None))


@given(LENGTHS, st.integers(0, 7))
def test_drop_tail_leaves_a_first_row(lengths, n):
    panel = panel_of(lengths)
    expected = {
        id: cut({id: rows}, slice(None, max(len(rows[0]) - n, 1)))[id]
        for id, rows in as_lists(panel).items()
    }
    assert as_lists(panel.drop_tail(n)) == expected


def test_drop_tail_takes_one_number_per_series():
    dropped = panel_of([4, 3, 2]).drop_tail(np.array([0, 2, 5]))
    assert dropped.lengths.tolist() == [4, 1, 1]
    assert dropped.y[:, 0].tolist() == [0, 1, 2, 3, 4, 7]


@given(LENGTHS)
def test_tail_and_drop_tail_are_a_partition(lengths):
    panel = panel_of([k + 2 for k in lengths])
    together = np.sort(np.concatenate([panel.drop_tail(2).y[:, 0], panel.tail(2).y[:, 0]]))
    assert together.tolist() == panel.y[:, 0].tolist()


@given(LENGTHS, st.randoms(use_true_random=False))
def test_keep_keeps_the_rows_of_a_mask(lengths, random):
    panel = panel_of(lengths)
    mask = np.array([random.random() < 0.5 for _ in range(panel.rows)])
    mask[panel.offsets[:-1]] = True  # every series must keep one
    kept = panel.keep(mask)
    assert kept.y[:, 0].tolist() == panel.y[mask, 0].tolist()
    assert kept.owner.tolist() == panel.owner[mask].tolist()


def test_names_are_what_people_wrote():
    panel = panel_of([1, 1])
    assert panel.name(1) == "id 's1'"
    numbers = Panel(**{**vars(panel), "ids": np.array([7, 8])})
    assert numbers.name(0) == "id 7"


def test_future():
    future = Future(np.arange(6.0).reshape(2, 3), np.zeros((2, 3, 4)))
    assert future.horizon == 3
    assert future.select(np.array([1])).t.tolist() == [[3, 4, 5]]
    assert future.select(slice(0, 1)).u.shape == (1, 3, 4)


def test_a_panel_is_not_changed_in_place():
    with pytest.raises(AttributeError):
        panel_of([1]).t = np.zeros(1)
