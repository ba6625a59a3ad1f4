"""BDD100K: what is said where neither release is found."""

import pytest

from data import prepare


def test_no_known_layout(tmp_path):
  (tmp_path / "raw" / "images" / "10k" / "train").mkdir(parents=True)
  with pytest.raises(FileNotFoundError, match=r"neither images/10k/train with labels/sem_seg"):
    prepare.prepare("bdd100k", tmp_path / "raw", tmp_path / "out")
