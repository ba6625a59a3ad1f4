"""Text files of any editor."""

import codecs

import pytest

from semiseg_jax.input.text import read_text

TEXT = 'names = ["Straße"]\nscene_1\n'


@pytest.mark.parametrize(
  "content",
  [
    TEXT.encode(), TEXT.encode("utf-8-sig"), TEXT.replace("\n", "\r\n").encode("utf-8-sig"),
    TEXT.encode("utf-16"), TEXT.encode("utf-16-le"), TEXT.encode("utf-16-be"),
    codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
  ],
)  # fmt: skip
def test_every_encoding(tmp_path, content):
  (tmp_path / "a.txt").write_bytes(content)
  assert read_text(tmp_path / "a.txt") == TEXT


def test_an_empty_file(tmp_path):
  (tmp_path / "a.txt").touch()
  assert read_text(tmp_path / "a.txt") == ""


@pytest.mark.parametrize("content", [TEXT.encode("latin-1"), codecs.BOM_UTF16_LE + b"a"])
def test_what_is_none_is_named(tmp_path, content):
  (tmp_path / "a.txt").write_bytes(content)
  with pytest.raises(ValueError, match=r"a\.txt is no text in UTF-8 or UTF-16"):
    read_text(tmp_path / "a.txt")
