"""What the wrappers of a source know of it."""

import numpy as np
import pytest

from semiseg_jax.input.partial import PartialLabels
from semiseg_jax.input.sources import Joined, Source, Subset, Transformed
from semiseg_jax.transforms.evaluation import Pad, Whole


class Squares(Source):
  """Images of one class; fingerprint: None for a source that does not know its own."""

  def __init__(self, count: int, fingerprint: str | None = None):
    self.ids = [f"{fingerprint} {i}" for i in range(count)]
    self.labeled, self.sizes = np.ones(count, bool), [(4, 4)]
    self._fingerprint = fingerprint

  def __getitem__(self, index):
    return {"image": np.zeros((4, 4, 3), np.uint8), "label": np.zeros((4, 4), np.uint8)}

  def fingerprint(self):
    return self._fingerprint


def wrapped(first: Source, second: Source) -> dict[str, Source]:
  return {
    "first": first,
    "second": second,
    "part": Subset(first, [2, 0]),
    "the same rows in another order": Subset(first, [0, 2]),
    "transformed": Transformed(first, Whole()),
    "transformed otherwise": Transformed(first, Pad((5, 5))),
    "transformed part": Transformed(Subset(first, [2, 0]), Whole()),
    "part of what is transformed": Subset(Transformed(first, Whole()), [1]),
    "joined": Joined(first, second),
    "joined the other way": Joined(second, first),
    "part of joined": Subset(Joined(first, second), [0, 4]),
  }


def test_every_wrapper_has_a_fingerprint_of_its_own():
  sources = wrapped(Squares(3, "a"), Squares(2, "b"))
  prints = [source.fingerprint() for source in sources.values()]
  assert None not in prints and len(set(prints)) == len(prints)
  again = wrapped(Squares(3, "a"), Squares(2, "b"))
  assert prints == [source.fingerprint() for source in again.values()]


@pytest.mark.parametrize("name", wrapped(Squares(3), Squares(2, "b")))
def test_what_a_source_does_not_know_no_wrapper_knows(name):
  source = wrapped(Squares(3), Squares(2, "b"))[name]
  assert source.fingerprint() == ("b" if name == "second" else None)
  assert source.lists() == []
  with pytest.raises(KeyError, match="30_0"):
    source.ids_of("30_0")
  assert source.read_label(0).shape == source[0]["label"].shape


def test_sparse_labels_have_no_fingerprint_of_the_full_ones(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert PartialLabels(Squares(3, "a"), "p0", 0, 1).fingerprint() is None
