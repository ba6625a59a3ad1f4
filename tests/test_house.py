"""The rooms of the code: who may import whom, and how large a room may be."""

import ast
import graphlib
import pathlib
import re

import pytest

from semiseg_jax.methods import METHODS

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = (  # from the top; what stands side by side does not import one another
  ("launch",),
  ("__init__", "__main__"),
  ("commands",),
  ("planning", "trained"),
  ("training",),
  ("convert",),
  ("runtime",),
  ("evaluation",),
  ("methods",),
  ("input",),
  ("contract",),
  ("augment",),
  ("losses", "rankdice"),
  ("transforms",),
  ("networks",),
  ("models",),
  ("schedules",),
  ("fields",),
  ("values", "paths", "files", "backend", "collectives", "labels"),
  ("buckets",),
)
LARGEST_SHARE = 0.15  # of the package's lines in one room


def module_name(path: pathlib.Path) -> str:
  """Of a file, such as semiseg_jax.models.layers; a package is its __init__.py."""
  name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
  return name.removesuffix(".__init__")


def source_files() -> list[pathlib.Path]:
  folders = ("semiseg_jax", "configs", "data")
  return [ROOT / "launch.py", *(p for f in folders for p in sorted((ROOT / f).rglob("*.py")))]


FILES = {module_name(path): path for path in source_files()}


def imports(text: str, package: list[str]) -> set[str]:
  """Our own modules that code in a package imports: at its top, in functions, for types alone."""
  found = set()
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      above = package[: len(package) - node.level + 1] if node.level else []
      parent = ".".join([*above, *filter(None, [node.module])])
      whole = [f"{parent}.{alias.name}" for alias in node.names]
      found |= {module if module in FILES else parent for module in whole}
  return found & FILES.keys()


def imports_of_file(name: str) -> set[str]:
  path, package = FILES[name], name.split(".")
  if path.name != "__init__.py":
    package = package[:-1]
  return imports(path.read_text(), package) - {name}


IMPORTS = {name: imports_of_file(name) for name in FILES}


def test_every_kind_of_import_is_seen():
  text = """
import semiseg_jax.labels as labels
from semiseg_jax import fields, unknown
if typing.TYPE_CHECKING:
  from semiseg_jax.models.layers import Conv
def late():
  from . import geometry
  from ..losses.pixel import supervised_loss
"""
  expected = {"labels", "fields", "", "models.layers", "augment.geometry", "losses.pixel"}
  expected = {f"semiseg_jax.{name}".rstrip(".") for name in expected}
  assert imports(text, ["semiseg_jax", "augment"]) == expected


def room(name: str) -> str:
  """The room of one of our modules: the part of semiseg_jax, or else the top-level folder."""
  parts = name.split(".")
  if parts[0] != "semiseg_jax":
    return parts[0]
  return parts[1] if len(parts) > 1 else "__init__"


def arrows(allowed) -> list[str]:
  """Every import, as text, for which `allowed(importer, imported)` does not hold."""
  pairs = ((name, other) for name, others in IMPORTS.items() for other in sorted(others))
  return [f"{name} imports {other}" for name, other in pairs if not allowed(name, other)]


def floor(name: str) -> int | None:
  """0 is the top; None for configs and data, which stand beside the house."""
  return next((i for i, rooms in enumerate(FLOORS) if room(name) in rooms), None)


def is_beside(name: str) -> bool:
  return room(name) in ("configs", "data")


def test_every_module_stands_on_a_floor():
  assert [name for name in FILES if floor(name) is None and not is_beside(name)] == []


def test_no_import_leads_up():
  def allowed(name: str, other: str) -> bool:
    if is_beside(name) or is_beside(other) or room(name) == room(other):
      return True
    return floor(name) < floor(other)

  assert arrows(allowed) == []


def test_imports_go_in_no_circle():
  try:
    graphlib.TopologicalSorter(IMPORTS).prepare()
  except graphlib.CycleError as error:
    pytest.fail(" <- ".join(error.args[1]))


def test_the_package_knows_neither_configs_nor_data():
  assert arrows(lambda name, other: not (name.startswith("semiseg_jax") and is_beside(other))) == []


def test_commands_are_for_the_command_line_alone():
  users = ("launch", "__main__", "commands")
  assert arrows(lambda name, other: room(other) != "commands" or room(name) in users) == []


def test_a_method_imports_another_only_to_build_on_it():
  of = lambda name: METHODS.get(name.removeprefix("semiseg_jax.methods."))
  assert arrows(lambda a, b: not (of(a) and of(b)) or issubclass(of(a), of(b))) == []


def lines_of_rooms() -> dict[str, int]:
  lines: dict[str, int] = {}
  for name, path in FILES.items():
    if name.startswith("semiseg_jax"):
      lines[room(name)] = lines.get(room(name), 0) + len(path.read_text().splitlines())
  return lines


def test_no_room_is_too_large():
  lines = lines_of_rooms()
  most = LARGEST_SHARE * sum(lines.values())
  assert {name: count for name, count in lines.items() if count >= most} == {}


def test_the_readme_names_every_room():
  table = re.search(r"\| room \|.*?\n\n", (ROOT / "README.md").read_text(), re.DOTALL)[0]
  names = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", table))))
  rooms = {room(name) for name in FILES} - {"__init__", "__main__", "launch"}
  assert rooms - names == set()
