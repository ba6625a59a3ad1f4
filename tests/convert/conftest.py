"""The order of the tests of whole networks."""

from tests.convert.recorded import manifest_of


def pytest_collection_modifyitems(items):
  """Those of one file's weights come one after the other, so that these are made once."""
  places = [i for i, item in enumerate(items) if item.path.name == "test_families.py"]
  ordered = sorted((items[i] for i in places), key=_manifest)
  for place, item in zip(places, ordered, strict=True):
    items[place] = item


def _manifest(item) -> str:
  params, name = getattr(item, "callspec", None), item.name.removeprefix("test_")
  known = params.params if params else {}
  folder = next((f for f in ("reco", "memory_bank", "dst_cbc") if name.startswith(f)), None)
  if folder and "name" in known:
    return manifest_of(folder, known["name"])
  return known.get("manifest", "")
