"""Weights by name: a file on this machine, or one of a repository on the Hugging Face Hub."""

import pathlib
import re

_SCHEME = "hf://"
_REFERENCE = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[^/]+))?/(?P<file>.+)")


def fetch(reference: str) -> pathlib.Path:
  """The file that a path or "hf://ORG/REPO[@REVISION]/FILE" names, downloaded once if need be.

  The hub's own settings hold (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). Raises
  FileNotFoundError if there is no such file, ValueError for a malformed reference, OSError if the
  hub can't be reached and ImportError without huggingface_hub.
  """
  if not reference.startswith(_SCHEME):
    path = pathlib.Path(reference).expanduser()
    if not path.is_file():
      raise FileNotFoundError(f"there is no file {path}")
    return path
  if not (match := _REFERENCE.fullmatch(reference)):
    raise ValueError(f"{reference!r} should be hf://ORG/REPO/FILE or hf://ORG/REPO@REVISION/FILE")
  return _download(reference, match["repo"], match["file"], match["revision"])


def _download(reference: str, repo: str, file: str, revision: str | None) -> pathlib.Path:
  try:
    import huggingface_hub
    from huggingface_hub import errors
  except ImportError as error:
    raise ImportError(f"{reference} needs pip install 'semiseg_jax[hub]'") from error
  try:
    return pathlib.Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
  except errors.GatedRepoError as error:
    raise PermissionError(
      f"{reference}: its owner asks for consent first; give it on the hub and set HF_TOKEN"
    ) from error
  except errors.LocalEntryNotFoundError as error:
    raise ConnectionError(
      f"{reference} is not in the cache and the hub can't be reached: check the network, or "
      "download the file and give its path"
    ) from error
  except errors.EntryNotFoundError as error:
    raise FileNotFoundError(f"{reference}: the repository has no file {file}") from error
  except errors.RevisionNotFoundError as error:
    raise FileNotFoundError(f"{reference}: the repository has no revision {revision}") from error
  except errors.RepositoryNotFoundError as error:
    raise FileNotFoundError(
      f"{reference}: there is no repository {repo}, or it is private and HF_TOKEN is not set"
    ) from error
  except errors.HfHubHTTPError as error:
    raise ConnectionError(f"{reference}: {error}") from error
  except errors.HFValidationError as error:
    raise ValueError(f"{reference}: {error}") from error
