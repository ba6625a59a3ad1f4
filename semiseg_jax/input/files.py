"""Which files of a user's folders are pictures, and which are no files of the user's at all."""

import pathlib

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_SYSTEM = {
  "__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information",
  "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
}  # fmt: skip


def is_own(path: pathlib.PurePath) -> bool:
  """False for what systems and programs leave beside a user's files, such as ._NAME, .DS_Store and
  Thumbs.db, or in folders of their own, such as @eaDir and .ipynb_checkpoints.

  path: relative to the folder that the user named, whose own name may be anything.
  """
  return not any(part.startswith(".") or part.lower() in _SYSTEM for part in path.parts)
