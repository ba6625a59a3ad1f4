"""A stand-in for Google Cloud Storage, a process of its own: `python -m tests.buckets PORT NAME`.

It keeps one bucket in memory. What the package leaves out and TensorStore relies on is added:
the generation of what is read, and writes on condition of one.
"""

import contextlib
import http
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

from tests.processes import ROOT, free_port

BUCKET = "runs"


def serve(port: int, bucket: str) -> None:
  from gcp_storage_emulator.handlers import objects  # before its server, which looks them up

  objects.insert = _on_condition(objects.insert)
  objects.download = _with_generation(objects.download)
  from gcp_storage_emulator.server import create_server

  create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket).run()


def _generation(storage, bucket: str, name: str) -> str:
  from gcp_storage_emulator.exceptions import NotFound

  try:
    return storage.get_file_obj(bucket, name)["generation"]
  except NotFound:
    return "0"


def _on_condition(insert: Callable) -> Callable:
  def checked(request, response, storage):
    wanted, name = (request.query.get(key) for key in ("ifGenerationMatch", "name"))
    if wanted and name:
      there = _generation(storage, request.params["bucket_name"], name[0])
      if there != wanted[0]:
        response.status = http.HTTPStatus.PRECONDITION_FAILED
        return
    insert(request, response, storage)

  return checked


def _with_generation(download: Callable) -> Callable:
  def told(request, response, storage):
    of = request.params["bucket_name"], request.params["object_id"]
    response["x-goog-generation"] = _generation(storage, *of)
    download(request, response, storage)

  return told


@contextlib.contextmanager
def served() -> Iterator[dict[str, str]]:
  """What the environment has to say so that a process finds the stand-in, while it is there."""
  port = free_port()
  command = [sys.executable, "-m", "tests.buckets", str(port), BUCKET]
  process = subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  url = f"http://127.0.0.1:{port}"
  try:
    _wait_for(url, process)
    yield {
      "STORAGE_EMULATOR_HOST": url,
      "TENSORSTORE_GCS_HTTP_URL": url,
      "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it would ask for the kind of bucket by gRPC
    }
  finally:
    process.kill()
    process.wait()


def _wait_for(url: str, process: subprocess.Popen) -> None:
  while process.poll() is None:
    with contextlib.suppress(OSError), urllib.request.urlopen(url):
      return
    time.sleep(0.05)
  raise AssertionError(f"the stand-in ended with {process.returncode}")


if __name__ == "__main__":
  serve(int(sys.argv[1]), sys.argv[2])
