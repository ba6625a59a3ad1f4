"""Every published list: its name, its size and the digest of its ids."""

import hashlib

import pytest

from data import prepare, published
from semiseg_jax.input import datasets, splits
from tests import golden
from tests.data import trees

SPLITS = ("train", "val")
GOLDENS = sorted(path.name for path in golden.FOLDER.glob("dst_cbc/splits*.json"))
# name, number of ids, start of the SHA-256 of the authors' file: ids joined by line feeds (those of
# DST-CBC's Cityscapes lists without the city's folder)
DIGESTS = {
  "pascal": """
    train 10582 855dff350b7f447b
    val 1449 6f8edc37993764f6
    dst_cbc/106_0 100 edaa4505986c5b4d
    dst_cbc/106_1 100 ddbcf4074f789a63
    dst_cbc/106_2 100 45d320615b2ab29c
    dst_cbc/1_0 10582 cdce97821097da17
    dst_cbc/1_1 10582 dc6c10521b1e15d2
    dst_cbc/1_2 10582 9776328f51253c33
    dst_cbc/20_0 530 fa38bce553c7f798
    dst_cbc/20_1 530 8af67905dfc5b28d
    dst_cbc/20_2 530 dcea6082d410e32c
    dst_cbc/2_0 5291 487e5b629b0f6123
    dst_cbc/2_1 5291 03b8c5e5e80e2faf
    dst_cbc/2_2 5291 bf18b535eb92f0b7
    dst_cbc/4_0 2645 ef4e432d1991b666
    dst_cbc/4_1 2645 aaeefd8d3db7680f
    dst_cbc/4_2 2645 7f7596492f879937
    dst_cbc/50_0 211 fc0a0c7d29ee2a52
    dst_cbc/50_1 211 15a722e60f0e686d
    dst_cbc/50_2 211 14f88f7dfc764f8b
    dst_cbc/8_0 1322 d9c8203385d7aaab
    dst_cbc/8_1 1322 3d4c49ea2c334013
    dst_cbc/8_2 1322 5a9900b582c2d7b0
    dst_cbc/valtiny 20 e477cc8998014d41
    memory_bank/212_0 212 06f70e2ea19c7683
    memory_bank/530_0 530 57c2465951b83590
    memory_bank/1323_0 1323 e4b87cce03a3e106
    memory_bank/212_1 212 8d083eb7eb42a672
    memory_bank/530_1 530 8d6742bec7f699e0
    memory_bank/1323_1 1323 bded2bbe87e76da1
    memory_bank/212_2 212 cbe3a2cb956b5602
    memory_bank/530_2 530 0b9866a00b1a66b1
    memory_bank/1323_2 1323 75c10a7bd409367f
  """,
  "cityscapes": """
    train 2975 356596e69da79ecb
    val 500 9e85f1e65cf6030b
    dst_cbc/1_0 2975 5822e17341fcfd55
    dst_cbc/1_1 2975 c990c0b3097916dc
    dst_cbc/1_2 2975 d919b86f1e9b76f1
    dst_cbc/30_0 100 1530658d71fe2194
    dst_cbc/30_1 100 882e06856d0c39a2
    dst_cbc/30_2 100 8aa2a1b1e8a526e2
    dst_cbc/4_0 743 97a2673faf235e1b
    dst_cbc/4_1 743 be4e76b64898bb4f
    dst_cbc/4_2 743 ae8f14a29d2b1b36
    dst_cbc/8_0 371 25f3986e896154eb
    dst_cbc/8_1 371 c9fa634c7a53197e
    dst_cbc/8_2 371 4ae471efc1c18201
    dst_cbc/valtiny 19 9a638ba55738c961
    memory_bank/100_0 100 aae57486a8424189
    memory_bank/372_0 372 d026579f22857854
    memory_bank/744_0 744 762c2a8521f060db
    memory_bank/100_1 100 f9d34d2b89320323
    memory_bank/372_1 372 358665a4f23d06d0
    memory_bank/744_1 744 0b5242fe600fb14d
    memory_bank/100_2 100 70bee0875e5dc2e2
    memory_bank/372_2 372 9a61d9fb8c6cf636
    memory_bank/744_2 744 a1d12224b073f460
    c3/100_seed12345 100 73c15d2fc2d01acc
    c3/100_seed23456 100 a53cc42dc2ca128d
    c3/100_seed34567 100 0f5c7a75944f97ec
    c3/372_seed12345 372 b2ab3573995a6334
    c3/372_seed23456 372 49bf75de5b3863cf
    c3/372_seed34567 372 db1a9bdd452e68b7
    c3/744_seed12345 744 a6c658a8a4f89d63
    c3/744_seed23456 744 796602ddff11c686
    c3/744_seed34567 744 afaf1ff7651386b7
  """,
}


# of UniMatch V2's files, whose lines are an image and its mask
_CITY = "leftImg8bit/train/{1}/{0}_leftImg8bit.png gtFine/train/{1}/{0}_gtFine_labelTrainIds.png"
UNIMATCH = {
  "pascal": (
    "JPEGImages/{0}.jpg SegmentationClass/{0}.png",
    "92 8a02aa6a1253 183 de3f4680391c 366 74f6bd1e459a 732 02c8ec5b62e2 1464 b20486876df3",
  ),
  "cityscapes": (
    _CITY,
    "1_30 b11041fef704 1_16 64195914dce1 1_8 97291dfc509a 1_4 8edd24ae817e 1_2 90d8e29d4d18",
  ),
  "ade20k": (
    "images/training/{0}.jpg annotations/training/{0}.png",
    "1_64 78f423b10adc 1_32 b5f4e344f278 1_16 a716e48c18e4 1_8 311d88abc340 1_4 e657087c6b05 "
    "1_2 cf34f0bd73d0",
  ),
  "coco": (
    "train2017/{0}.jpg masks/{0}.png",
    "1_512 bd0ff85bf2d3 1_256 4cdf41b9d3b3 1_128 06067c0fb879 1_64 622b84ccbb5d 1_32 781b5990914f",
  ),
}


def everything(dataset):
  """The listings and all lists, by name."""
  found = {split: published.listing(dataset, split) for split in SPLITS}
  for split in SPLITS:
    found |= published.lists(dataset, split, found[split])
  return found


@pytest.mark.parametrize("dataset", DIGESTS)
def test_equal_to_the_published_lists(dataset):
  digest = lambda ids: hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
  found = {name: (len(ids), digest(ids)) for name, ids in everything(dataset).items()}
  lines = [line.split() for line in DIGESTS[dataset].split("\n") if line.strip()]
  found = {name: x for name, x in found.items() if not name.startswith(("dmt/", "unimatch/"))}
  assert found == {name: (int(count), digest) for name, count, digest in lines}


@pytest.mark.parametrize("dataset", UNIMATCH)
def test_unimatchs_files(dataset):
  line, text = UNIMATCH[dataset]
  sets = published.unimatch_sets(dataset)
  names, digests = text.split()[::2], text.split()[1::2]
  for name, expected in zip(names, digests, strict=True):
    lines = [line.format(image, image.partition("_")[0]) for image in sets[f"unimatch/{name}"]]
    digests_of = [
      hashlib.sha256(("\n".join(lines) + end).encode()).hexdigest() for end in ("", "\n")
    ]
    assert expected in [digest[:12] for digest in digests_of], name
  blended = {name for name in sets if name.removeprefix("unimatch/") not in names}
  assert len(blended) == (6 if dataset == "pascal" else 0)  # UniMatch V1's


def test_unimatchs_sets_need_their_own_images_alone():
  ids = published.unimatch_sets("coco")["unimatch/1_512"]
  found = published.lists("coco", "train", [*ids, "another"])
  assert found["unimatch/1_512"] == ids and "unimatch/1_32" not in found
  assert published.lists("coco", "train", ids[1:]) == {}


def test_dmts_samples_are_four_fifths_and_share_three():
  """Its own files are not at hand: what its rule says of them."""
  found = everything("pascal")
  names = [name for name in found if name.startswith("dmt/")]
  assert len(names) == 2 * 4 * 3
  for name in (name.removesuffix("_left") for name in names if name.endswith("_left")):
    whole = found[name.replace("dmt", "dst_cbc")]
    left, right = (set(found[f"{name}_{side}"]) for side in ("left", "right"))
    out = -(-len(whole) // 5)
    assert left | right == set(whole) and len(left) == len(right) == len(whole) - out
    assert len(left & right) == len(whole) - 2 * out


@pytest.mark.parametrize("dataset", DIGESTS)
def test_ids_are_of_the_listing_and_different(dataset):
  for split in SPLITS:
    listing = published.listing(dataset, split)
    assert listing == sorted(set(listing))
    for ids in published.lists(dataset, split, listing).values():
      assert len(set(ids)) == len(ids) and set(ids) <= set(listing)


def test_nothing_is_published_of_another_listing():
  ids = published.listing("cityscapes", "val")
  assert published.lists("cityscapes", "val", ids)
  for dataset, split, others in (
    ("cityscapes", "val", ids[:-1]),
    ("cityscapes", "val", ids[::-1]),
    ("cityscapes", "train", ids),
    ("cityscapes", "extra", ids),
    ("toy_scenes", "val", ids),
    ("toy_scenes", "val", []),
  ):
    assert published.lists(dataset, split, others) == {}


@pytest.mark.parametrize("name", GOLDENS)
def test_generator_of_dst_cbc(name):
  case = golden.load_json(f"dst_cbc/{name}")
  ids, files = list(range(case["count"])), case["files"]
  found = published.dst_cbc(ids, {str(value): value for value in (1, *case["fractions"])})
  for name, labeled in found.items():
    divisor, number = name.removeprefix("dst_cbc/").split("_")
    assert labeled == files[f"{divisor}_labeled_{number}.txt"]
    if divisor != "1":
      assert set(ids) - set(labeled) == set(files[f"{divisor}_unlabeled_{number}.txt"])
  assert len(found) == sum("_labeled_" in name for name in files)


def test_lists_travel_with_the_prepared_set(tmp_path, monkeypatch):
  def of_a_miniature(dataset, split, ids):
    assert dataset == "cityscapes"
    return {"dst_cbc/30_0": ids[:0:-1]} if split == "train" else {"dst_cbc/valtiny": ids[:1]}

  monkeypatch.setattr(published, "lists", of_a_miniature)
  trees.write_cityscapes(tmp_path / "raw", monkeypatch)
  prepare.prepare("cityscapes", tmp_path / "raw", tmp_path, "full")
  dataset = datasets.open_dataset("cityscapes", data_dir=tmp_path)
  assert dataset.train.lists() == ["dst_cbc/30_0"] and dataset.extra is None
  labeled = splits.labeled_indices("dst_cbc/30_0", dataset.train, dataset.info)
  assert labeled.tolist() == [2, 1]
  assert splits.unlabeled_indices(labeled, dataset.train).tolist() == [0]
  assert splits.val_indices("dst_cbc/valtiny", dataset.val).tolist() == [0]
