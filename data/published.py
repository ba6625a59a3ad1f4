"""The published label splits."""


def lists(dataset: str, split: str, ids: list[str]) -> dict[str, list[str]]:
  return {}
