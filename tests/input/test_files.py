"""What of a folder is the user's."""

import pathlib

import pytest

from semiseg_jax.input.files import is_own


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "masks/scene_1.tif", "Thumbs.db.png", "a..b"])
def test_files_of_the_user(name):
  assert is_own(pathlib.PurePath(name))


@pytest.mark.parametrize(
  "name",
  [
    "._a.png", ".DS_Store", "Thumbs.db", "THUMBS.DB", "desktop.ini", ".a/b.png", "a/._b.png",
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "a/__MACOSX/b.png", "a/.ipynb_checkpoints/b.png",
    "$RECYCLE.BIN/a.png", "#recycle/a.png", ".Trash-1000/files/a.png", "lost+found/a.png",
  ],
)  # fmt: skip
def test_files_of_systems(name):
  assert not is_own(pathlib.PurePath(name))
