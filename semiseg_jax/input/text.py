"""Text files as people's editors write them."""

import codecs
import pathlib

_MARKS = {  # a byte order mark, or how UTF-16 without one begins where the first sign is ASCII
  codecs.BOM_UTF8: "utf-8-sig",
  codecs.BOM_UTF16_LE: "utf-16",
  codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: pathlib.Path) -> str:
  """UTF-8, or UTF-16 as Windows' programs write it, with or without a byte order mark.

  Raises ValueError naming a file that is neither.
  """
  content = path.read_bytes()
  encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
  if encoding == "utf-8" and 0 in content[:2]:
    encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
  try:
    return content.decode(encoding).replace("\r\n", "\n")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path} is no text in UTF-8 or UTF-16: save it as UTF-8") from error
