"""hf:// references, against a stand-in of the hub on this machine."""

import http.server
import pathlib
import subprocess
import sys
import threading

import pytest

from semiseg_jax.convert import hub

pytest.importorskip("huggingface_hub")

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
