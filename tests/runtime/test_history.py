"""metrics.jsonl, read again whatever was done to it."""

import json
import math

import numpy as np
import pytest

from semiseg_jax.runtime.history import (
  drop_later_lines,
  number,
  parse,
  read_history,
  series,
  series_of_classes,
)

FOREIGN = (
  b"",
  b"not JSON",
  b'{"step": 4, "kind": "train", "lo',
  b"[1, 2]",
  b"7",
  b'{"step": "4", "kind": "train"}',
  b'{"step": true, "kind": "train"}',
  b'{"step": -1, "kind": "train"}',
  b'{"step": 1' + b"0" * 400 + b', "kind": "train"}',
  b'{"step": 4, "kind": ["train"]}',
  b'{"step": 4}',
  b"\xff\xfe\x00",
  b"[" * 100_000,
)


def row(step, kind="train", **values):
  return json.dumps({"step": step, "kind": kind, **values})


def test_rows_are_in_the_order_of_their_steps_the_later_line_counts(tmp_path):
  path = tmp_path / "metrics.jsonl"
  lines = [row(4, loss=1.0), row(8, loss=2.0), row(4, "eval"), row(2, loss=3.0), row(8, loss=5.0)]
  path.write_text("\n".join(lines) + "\n")
  history = read_history(path)
  assert [(r["step"], r["loss"]) for r in history.train] == [(2, 3.0), (4, 1.0), (8, 5.0)]
  assert [r["step"] for r in history.evaluations] == [4] and history.foreign == []


@pytest.mark.parametrize("line", FOREIGN, ids=range(len(FOREIGN)))
def test_a_foreign_line_is_skipped_and_its_number_told(line, tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(b"\n".join([row(2).encode(), line, row(4).encode(), b""]))
  history = read_history(path)
  assert [r["step"] for r in history.train] == [2, 4] and history.foreign == [2]
  drop_later_lines(path, 2)
  assert path.read_text() == row(2) + "\n"


def test_a_line_that_is_being_written_is_not_foreign(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text(row(2) + "\n" + row(4)[:-5])
  history = read_history(path)
  assert [r["step"] for r in history.train] == [2] and history.foreign == []


def test_no_file_is_no_line_to_drop(tmp_path):
  drop_later_lines(tmp_path / "metrics.jsonl", 3)
  assert list(tmp_path.iterdir()) == []


def test_numbers():
  values = [1, 2.5, None, "3", True, [1], math.inf, math.nan, 10**400]
  assert np.array_equal([number(v) for v in values], [1, 2.5, *[math.nan] * 7], equal_nan=True)


def test_series_have_a_value_where_the_key_is():
  rows = [parse(row(2, loss=1.0)), parse(row(4)), parse(row(6, loss=None)), parse(row(8, loss=2))]
  steps, values = series(rows, "loss")
  assert steps.tolist() == [2, 6, 8] and np.array_equal(values, [1, np.nan, 2], equal_nan=True)
  assert [len(x) for x in series(rows, "nothing")] == [0, 0]


def test_series_of_classes_are_lists_or_dicts():
  rows = [
    parse(row(2, iou={"b": 0.5, "a": None})),
    parse(row(4, iou=[0.25, 0.75])),
    parse(row(6, iou=[0.25])),  # of another dataset
    parse(row(8, iou=0.5)),
  ]
  steps, values = series_of_classes(rows, "iou", ("a", "b"))
  assert steps.tolist() == [2, 4]
  assert np.array_equal(values, [[np.nan, 0.5], [0.25, 0.75]], equal_nan=True)
  assert series_of_classes([], "iou", ("a", "b"))[1].shape == (0, 2)
