"""What lies where weights should be is named, with what to do, in one line."""

import gzip
import io
import json
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from semiseg_jax.convert import files

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")

TENSORS = {"conv.weight": np.ones((2, 3, 1, 1), np.float32)}


def _zip(*names: str) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
    for name in names:
      archive.writestr(name, b"text")
  return buffer.getvalue()


def _tar() -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as archive:
    archive.addfile(tarfile.TarInfo("resnet50.pth"))
  return buffer.getvalue()


def _torch(zipped: bool) -> bytes:
  buffer = io.BytesIO()
  content = {key: torch.from_numpy(x) for key, x in TENSORS.items()}
  torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
  return buffer.getvalue()


def _script() -> bytes:
  """The names of what torch.jit.save writes."""
  return _zip("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl", "net/version")


PAGE = b"\n <!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 178090079\n"
INDEX = json.dumps({"metadata": {}, "weight_map": {"a": "model-00001.safetensors"}}).encode()
STRANGE = {
  "page": (PAGE, "is a web page, not weights"),
  "page with a mark": (b"\xef\xbb\xbf<html>", "is a web page"),
  "answer of a server": (b'{"error": "not found"}', "is a text, not weights: it begins with"),
  "pointer": (POINTER, "is a pointer of Git LFS.*git lfs pull"),
  "index": (INDEX, "several files: join them"),
  "script": (_script(), r"program of TorchScript.*torch\.jit\.load.*state_dict\(\)"),
  "other zip": (_zip("a.txt", "b/c.pth"), r"zip archive of a\.txt, b/c\.pth: unpack it"),
  "npz": (_zip("conv.weight.npy"), "zip archive of conv"),
  "tar": (_tar(), "is a tar archive: unpack it"),
  "gzip": (gzip.compress(_torch(True)), "packed by gzip: unpack it"),
  "keras": (b"\x89HDF\r\n\x1a\n" + bytes(600), "of HDF5, as Keras writes it"),
  "empty": (b"", "is empty: its download or copy failed"),
  "zeros": (bytes(4000), "full of zeros"),
  "cut zip": (_torch(True)[:-100], "cut off or damaged: download or copy it again"),
  "cut at once": (b"PK\x03\x04", "cut off or damaged"),
  "cut legacy": (_torch(False)[:-8], "is damaged .*download or copy it again"),
  "pickle": (pickle.dumps(TENSORS), "a pickle of Python's, not a file of PyTorch's"),
  "random": (b"\x01\xff\xfe\x02" * 50, "is no file of weights"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_weights_is_named(name, suffix, tmp_path):
  content, message = STRANGE[name]
  path = tmp_path / f"weights{suffix}"
  path.write_bytes(content)
  if suffix == ".safetensors" and name in ("pickle", "random"):
    message = "can't be read as safetensors"
  with pytest.raises(ValueError, match=message) as raised:
    files.read(path)
  said = str(raised.value)
  assert said.startswith(str(path)) and "\n" not in said and "weights_only" not in said


def test_a_suffix_does_not_matter(tmp_path):
  path = tmp_path / "one.pth"
  path.write_bytes(safetensors.save(TENSORS))
  assert list(files.read(path).content) == list(TENSORS)
  path = path.rename(tmp_path / "two.safetensors")
  path.write_bytes(_torch(True))
  assert list(files.read(path).content) == list(TENSORS)


@pytest.mark.parametrize("length", [6, 30, -4])
def test_a_safetensors_file_that_is_cut_off(length, tmp_path):
  path: pathlib.Path = tmp_path / "a.safetensors"
  path.write_bytes(safetensors.save(TENSORS)[:length])
  with pytest.raises(ValueError, match=r"can't be read as safetensors .*download or copy it again"):
    files.read(path)
