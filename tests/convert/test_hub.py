"""hf:// references, against a stand-in of the hub on this machine."""

import errno
import http.server
import pathlib
import subprocess
import sys
import threading

import pytest

from semiseg_jax.convert import hub

huggingface_hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
logging = pytest.importorskip("huggingface_hub.utils.logging")

FILES = {
  "/org/repo/resolve/main/sub/model.safetensors": b"weights",
  "/org/repo/resolve/v1/a.pth": b"old",
}
COMMIT = "0123456789" * 4


class Hub(http.server.BaseHTTPRequestHandler):
  """Answers what a download asks for, and says what is missing as the hub does."""

  def answer(self, with_body: bool) -> None:
    body = FILES.get(self.path)
    if body is None:
      code = "EntryNotFound"
      if not self.path.startswith("/org/repo/"):
        code = "GatedRepo" if "gated" in self.path else "RepoNotFound"
      elif "/resolve/main/" not in self.path and "/resolve/v1/" not in self.path:
        code = "RevisionNotFound"
      self.send_response(403 if code == "GatedRepo" else 404)
      self.send_header("X-Error-Code", code)
      self.send_header("X-Repo-Commit", COMMIT)
      self.send_header("Content-Length", "0")
      self.end_headers()
      return
    self.send_response(200)
    self.send_header("X-Repo-Commit", COMMIT)
    self.send_header("ETag", f'"{hash(body):x}"')
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    if with_body:
      self.wfile.write(body)

  def do_HEAD(self) -> None:
    self.answer(with_body=False)

  def do_GET(self) -> None:
    self.answer(with_body=True)

  def log_message(self, *_) -> None:
    pass


@pytest.fixture(scope="module")
def endpoint():
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f"http://127.0.0.1:{server.server_port}"
  server.shutdown()
  server.server_close()


PROGRAM = """
import sys
from semiseg_jax.convert import hub
for reference in sys.argv[1:]:
  try:
    print("file", hub.fetch(reference))
  except (OSError, ValueError) as error:
    print(type(error).__name__, str(error).replace(chr(10), " "))
"""


def fetch(endpoint: str, home: pathlib.Path, *references: str) -> list[str]:
  """What hub.fetch gives for each, in a process whose hub is the stand-in."""
  environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PATH": "", "JAX_PLATFORMS": "cpu"}
  root = pathlib.Path(hub.__file__).parents[2]
  command = [sys.executable, "-c", PROGRAM, *references]
  done = subprocess.run(
    command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=True
  )
  return done.stdout.splitlines()


def test_files_are_fetched_once_and_errors_are_clear(endpoint, tmp_path):
  model, old, file, revision, repo, gated = fetch(
    endpoint,
    tmp_path,
    "hf://org/repo/sub/model.safetensors",
    "hf://org/repo@v1/a.pth",
    "hf://org/repo/no_such.pth",
    "hf://org/repo@no_such/a.pth",
    "hf://org/other/a.pth",
    "hf://org/gated/a.pth",
  )
  for line, content in ((model, b"weights"), (old, b"old")):
    assert line.startswith("file ")
    assert pathlib.Path(line.removeprefix("file ")).read_bytes() == content
  assert file.startswith("FileNotFoundError hf://org/repo/no_such.pth: the repository has no file")
  assert revision.startswith("FileNotFoundError") and "no revision no_such" in revision
  assert repo.startswith("FileNotFoundError") and "no repository org/other" in repo
  assert gated.startswith("PermissionError") and "HF_TOKEN" in gated


class _Answer:
  def __init__(self, status: int):
    self.status_code = status


def _error(kind: type, status: int | None = None, cause: Exception | None = None) -> Exception:
  """As the hub's library raises it: of many lines, with the answer inside."""
  error = kind.__new__(kind)
  error.args = ("went wrong\nat length\n" * 6,)
  error.response, error.__cause__ = status and _Answer(status), cause
  return error


def refusals() -> list[tuple[Exception, str]]:
  http, absent = errors.HfHubHTTPError, errors.LocalEntryNotFoundError
  return [
    (_error(http, 401), "answers 401, HF_TOKEN is none that it knows: log in anew"),
    (_error(http, 403), "answers 403, HF_TOKEN doesn't allow it"),
    (_error(http, 429), "answers 429, it was asked too often: wait"),
    (_error(http, 503), "answers 503, it is out of order: try again later"),
    (_error(http, 400), r"answers 400 \(went wrong\): look at the name"),
    (_error(errors.HTTPError), r"can't be reached \(went wrong\): check the network"),
    (_error(absent, cause=_error(http, 502)), "not in the cache and the hub answers 502"),
    (_error(absent, cause=errors.OfflineModeIsEnabled("no")), "HF_HUB_OFFLINE is set.*unset it"),
    (_error(absent, cause=TimeoutError("timed out")), r"can't be reached \(timed out\)"),
    (errors.OfflineModeIsEnabled("no\nway"), "HF_HUB_OFFLINE is set"),
    (RuntimeError("CAS service\nerror"), r"can't be reached \(CAS service\)"),
    (OSError("no metadata\nin it"), "no metadata"),
  ]


@pytest.mark.parametrize(("error", "message"), refusals())
def test_what_the_hub_refuses_is_one_line(error, message, monkeypatch, capfd):
  """Also what its library says of each of its tries is left out, and heard again afterwards."""
  logger = logging.get_logger("huggingface_hub.file_download")

  def refuse(*_, **__):
    logger.warning("Retrying in 1s [Retry 1/5].")
    raise error

  monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
  with pytest.raises(OSError, match=f"^hf://org/repo/a.pth.*{message}") as raised:
    hub.fetch("hf://org/repo/a.pth")
  assert "\n" not in str(raised.value) and capfd.readouterr().err == ""
  assert logger.isEnabledFor(logging.WARNING)


def test_a_full_disk_is_no_matter_of_the_hub(monkeypatch):
  def refuse(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device", "/cache/x")

  monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
  with pytest.raises(OSError, match="No space left") as raised:
    hub.fetch("hf://org/repo/a.pth")
  assert raised.value.filename == "/cache/x"


@pytest.mark.slow  # the hub's client tries again for half a minute
def test_without_a_network_there_is_the_cache(endpoint, tmp_path):
  reference, nowhere = "hf://org/repo/sub/model.safetensors", "http://127.0.0.1:9"
  (first,) = fetch(endpoint, tmp_path, reference)
  cached, missing = fetch(nowhere, tmp_path, reference, "hf://org/repo/other.pth")
  assert cached == first
  assert missing.startswith("ConnectionError") and "can't be reached" in missing


@pytest.mark.parametrize("reference", ["hf://repo/a.pth", "hf://", "hf://org/repo", "hf://a b/c/d"])
def test_malformed_references(reference):
  with pytest.raises(ValueError, match="should be hf://ORG/REPO/FILE"):
    hub.fetch(reference)


def test_paths_are_files_on_this_machine(tmp_path):
  (tmp_path / "a.pth").write_bytes(b"")
  assert hub.fetch(str(tmp_path / "a.pth")) == tmp_path / "a.pth"
  with pytest.raises(FileNotFoundError, match="there is no file"):
    hub.fetch(str(tmp_path / "b.pth"))
