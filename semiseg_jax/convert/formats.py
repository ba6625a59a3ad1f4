"""What a file is, by its first bytes: one that holds weights, or what lies there instead."""

import pathlib
import zipfile

TORCH, SAFETENSORS = "torch", "safetensors"
_HEAD = 512  # bytes that tell
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_TORCH_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # in files before PyTorch 1.6
_LONGEST_HEADER = 100_000_000  # of a .safetensors file, by its definition
_UNPACK = "unpack it, and give the file of weights that is inside"
_OTHERS = {  # how files begin that are often taken for weights: what they are, and what to do
  b"version https://git-lfs": (
    "a pointer of Git LFS, not the file itself: run git lfs pull in its repository, or download "
    "the file from its page"
  ),
  b"\x1f\x8b": f"packed by gzip: {_UNPACK}",
  b"BZh": f"packed by bzip2: {_UNPACK}",
  b"\xfd7zXZ": f"packed by xz: {_UNPACK}",
  b"\x28\xb5\x2f\xfd": f"packed by zstd: {_UNPACK}",
  b"7z\xbc\xaf": f"packed by 7-Zip: {_UNPACK}",
  b"Rar!": f"packed by RAR: {_UNPACK}",
  b"\x89HDF": "of HDF5, as Keras writes it: only weights for PyTorch and .safetensors are read",
  b"\x93NUMPY": "one array of numpy's: only weights for PyTorch and .safetensors are read",
  b"GGUF": "of GGUF: only weights for PyTorch and .safetensors are read",
  b"\x89PNG": "a picture",
  b"\xff\xd8\xff": "a picture",
}


def format_of(path: pathlib.Path) -> str:
  """TORCH or SAFETENSORS, whatever the file is called.

  Raises ValueError for a file that holds no weights, saying what it is and what to do.
  """
  with open(path, "rb") as file:
    head = file.read(_HEAD)
  if head.startswith(_ZIP):
    _check_zip(path)
    return TORCH
  if head.startswith(_PICKLE) and _TORCH_MAGIC in head[:20]:
    return TORCH
  has_length = int.from_bytes(head[:8], "little") < _LONGEST_HEADER
  if has_length and head[8:9] == b"{":
    return SAFETENSORS
  if path.suffix == ".safetensors" and not _instead(head):
    return SAFETENSORS  # a damaged one
  if head.startswith(_PICKLE):
    raise ValueError(
      f"{path} is refused: it is a pickle of Python's, not a file of PyTorch's. Nothing of it was "
      "run. If you trust it, load it where it was made and save its tensors with torch.save"
    )
  what = _instead(head) or "no file of weights: PyTorch's and .safetensors are read"
  raise ValueError(f"{path} is {what}")


def _check_zip(path: pathlib.Path) -> None:
  """ValueError for any that `torch.save` did not write whole."""
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  except (zipfile.BadZipFile, OSError) as error:
    raise ValueError(
      f"{path} is cut off or damaged: download or copy it again, and compare the sizes"
    ) from error
  inside = {name.partition("/")[2] for name in names}
  if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
    raise ValueError(
      f"{path} is a program of TorchScript, not weights: open it in PyTorch by torch.jit.load and "
      "save its state_dict() with torch.save"
    )
  if "data.pkl" not in inside:
    some = ", ".join(names[:3]) or "nothing"
    raise ValueError(f"{path} is a zip archive of {some}: {_UNPACK}")


def _instead(head: bytes) -> str:
  """What a file is that begins so, "" if that can't be told."""
  if not head:
    return "empty: its download or copy failed"
  if not head.strip(b"\0"):
    return "full of zeros: its download or copy broke off"
  for beginning, what in _OTHERS.items():
    if head.startswith(beginning):
      return what
  if head[257:262] == b"ustar":
    return f"a tar archive: {_UNPACK}"
  text = head.decode("utf-8-sig", "replace").strip()
  if text.startswith("<"):
    return (
      "a web page, not weights, such as one that asks to log in or to confirm: download the file "
      "itself, and look at its size"
    )
  if '"weight_map"' in text:
    return "the list of weights that lie in several files: join them into one"
  if "\0" not in text and "\ufffd" not in text[:-1]:
    return f"a text, not weights: it begins with {text[:40]!r}"
  return ""
