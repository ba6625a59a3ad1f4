"""Files by name: on this machine, or of a repository on the Hugging Face Hub, and the way there."""

import contextlib
import pathlib
import re
import types
from collections.abc import Iterator, Sequence

from semiseg_jax.input.local_copy import local_copy
from semiseg_jax.paths import user_path
from semiseg_jax.runtime.errors import first_line

_SCHEME = "hf://"
_REPO = r"[\w.-]+/[\w.-]+"
_FILE = re.compile(rf"hf://(?P<repo>{_REPO}?)(@(?P<revision>[^/]+))?/(?P<file>.+)")
_REPOSITORY = re.compile(rf"hf://{_REPO}?(@[^/]+)?/?")


def is_repository(reference: str) -> bool:
  """Whether it is "hf://ORG/REPO" or "hf://ORG/REPO@REVISION", without a file."""
  return bool(_REPOSITORY.fullmatch(reference))


def fetch(reference: str) -> pathlib.Path:
  """The file that a path, "gs://BUCKET/FILE" or "hf://ORG/REPO[@REVISION]/FILE" names, downloaded
  once if need be.

  The hub's own settings hold (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). Raises
  FileNotFoundError if there is no such file, ValueError for a malformed reference, OSError if the
  hub can't be reached and ImportError without huggingface_hub.
  """
  if not reference.startswith(_SCHEME):
    path = local_copy(user_path(reference))
    if not path.is_file():
      raise FileNotFoundError(f"there is no file {path}")
    return path
  if not (match := _FILE.fullmatch(reference)):
    raise ValueError(f"{reference!r} should be hf://ORG/REPO/FILE or hf://ORG/REPO@REVISION/FILE")
  return _download(reference, match["repo"], match["file"], match["revision"])


def check_name(repo: str) -> None:
  """Raises ValueError unless it is ORG/REPO, and ImportError if nothing could be sent there."""
  if not re.fullmatch(_REPO, repo):
    raise ValueError(f"--push={repo!r} should be ORG/REPO, a repository on the hub")
  _library(repo)


def push(folder: pathlib.Path, names: Sequence[str], repo: str) -> str:
  """Uploads these files of a folder to ORG/REPO, which is made if need be; its address.

  HF_TOKEN, or a login of the hub's own tools, has to allow it. Raises OSError if that fails.
  """
  with _in_one_line(f"{_SCHEME}{repo}", repo, "HF_TOKEN doesn't allow to write to it"):
    api = _library(repo).HfApi()
    address = api.create_repo(repo, exist_ok=True)
    api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(names))
  return str(address)


def _download(reference: str, repo: str, file: str, revision: str | None) -> pathlib.Path:
  with _in_one_line(reference, repo, "it is private and HF_TOKEN is not set", file, revision):
    library = _library(reference)
    return pathlib.Path(library.hf_hub_download(repo, file, revision=revision))


def _library(reference: str) -> types.ModuleType:
  try:
    import huggingface_hub
  except ImportError as error:
    raise ImportError(f"{reference} needs pip install 'semiseg_jax[hub]'") from error
  return huggingface_hub


@contextlib.contextmanager
def _in_one_line(
  reference: str, repo: str, or_else: str, file: str = "", revision: str | None = None
) -> Iterator[None]:
  """What the hub's library raises, as an error for people; or_else: why a repository may seem not
  to be there. What it logs while it tries again is left out."""
  _library(reference)
  from huggingface_hub import errors
  from huggingface_hub.utils import logging

  verbosity = logging.get_verbosity()
  logging.set_verbosity_error()
  try:
    yield
  except errors.GatedRepoError as error:
    raise PermissionError(
      f"{reference}: its owner asks for consent first; give it on the hub and set HF_TOKEN"
    ) from error
  except errors.LocalEntryNotFoundError as error:
    raise ConnectionError(
      f"{reference} is not in the cache and {_refusal(error.__cause__)}, or download the file and "
      "give its path"
    ) from error
  except errors.EntryNotFoundError as error:
    raise FileNotFoundError(f"{reference}: the repository has no file {file}") from error
  except errors.RevisionNotFoundError as error:
    raise FileNotFoundError(f"{reference}: the repository has no revision {revision}") from error
  except errors.RepositoryNotFoundError as error:
    raise FileNotFoundError(f"{reference}: there is no repository {repo}, or {or_else}") from error
  except errors.LocalTokenNotFoundError as error:
    raise PermissionError(f"{reference}: set HF_TOKEN to a token that may write there") from error
  except errors.HFValidationError as error:
    raise ValueError(f"{reference}: {first_line(error)}") from error
  except (errors.HTTPError, errors.OfflineModeIsEnabled, RuntimeError) as error:
    # RuntimeErrors are those of the library that it sends large files with
    raise ConnectionError(f"{reference}: {_refusal(error)}") from error
  except OSError as error:
    if not error.strerror:  # the library's own; the others are of the disk
      raise ConnectionError(f"{reference}: {first_line(error)}") from error
    raise
  finally:
    logging.set_verbosity(verbosity)


_ANSWERS = {  # by the status of an answer: what to do
  401: "HF_TOKEN is none that it knows: log in anew, or unset it for what is public",
  403: "HF_TOKEN doesn't allow it: take one that does",
  409: "something else is being written there: try again",
  413: "it is too large for it",
  429: "it was asked too often: wait some minutes and try again",
}


def _refusal(error: BaseException | None) -> str:
  """Why nothing came of it, and what to do."""
  status = getattr(getattr(error, "response", None), "status_code", None)
  if status in _ANSWERS:
    return f"the hub answers {status}, {_ANSWERS[status]}"
  if status is not None and status >= 500:
    return f"the hub answers {status}, it is out of order: try again later"
  if status is not None:
    said = getattr(error, "server_message", None) or first_line(error)
    return f"the hub answers {status} ({' '.join(said.split())}): look at the name and HF_ENDPOINT"
  if type(error).__name__ == "OfflineModeIsEnabled":
    return "HF_HUB_OFFLINE is set, so the hub isn't asked: unset it"
  said = f" ({first_line(error)})" if error else ""
  return f"the hub can't be reached{said}: check the network and HF_ENDPOINT"
