"""Groups stay whole, shares and classes come out, and what leaks is refused or told."""

import collections
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from jaxseg.config import Data, Spec
from jaxseg.data.check import CheckedRecord
from jaxseg.data.dealing import assign_groups
from jaxseg.data.splits import (
    COLUMNS,
    PARTS,
    Split,
    find_leaks,
    make_split,
    read_split,
    write_split,
)
from jaxseg.datasets.record import Record
from jaxseg.errors import InputError


def record(name, group=None, label=1, split=None, source="", content=None):
    path = Path(f"{name}.png")
    listed = Record(name, path, None, label, group or name, split, source)
    return CheckedRecord(listed, content or f"sha-{name}", "", (32, 32), label, ())


def settings(**changes):
    values = dict(
        dir="data",
        image_size=(32, 32),
        channels=3,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        split="grouped",
        split_seed=0,
        val_fraction=0.15,
        test_fraction=0.2,
        sampling="shuffle",
        cache="none",
        augment={},
        source=Spec("folder_segmentation", {}),
    )
    return Data(**values | changes)


def photos(count=120, seed=0):
    """1 to 8 tiles of each photo, on two surfaces, 30 % with a crack."""
    random = np.random.default_rng(seed)
    return [
        record(
            f"p{i:03d}_{tile}",
            f"p{i:03d}",
            int(random.random() < 0.3),
            source="deck" if i % 3 else "wall",
        )
        for i in range(count)
        for tile in range(random.integers(1, 9))
    ]


def groups_of(records, split, part):
    return {records[i].record.group for i in split.indices(part)}


def refusal(records, **changes) -> InputError:
    with pytest.raises(InputError) as caught:
        make_split(records, settings(**changes))
    return caught.value


# Dealing whole groups.


@pytest.mark.parametrize("seed", range(3))
def test_no_group_stands_in_two_parts_and_the_shares_come_out(seed):
    records = photos(seed=seed)
    split = make_split(records, settings(split_seed=seed))
    assert find_leaks(records, split.parts) == ([], [])
    assert split.notes == ()
    for part, share in {"train": 0.65, "val": 0.15, "test": 0.2}.items():
        assert len(split.indices(part)) / len(records) == pytest.approx(share, abs=0.02)


def test_every_source_and_label_gets_its_share():
    records = photos()
    split = make_split(records, settings())
    totals, inside = collections.Counter(), collections.Counter()
    for checked, part in zip(records, split.parts, strict=True):
        stratum = checked.record.source, checked.label
        totals[stratum] += 1
        inside[stratum, part] += 1
    assert len(totals) == 4
    for stratum, total in totals.items():
        for part, share in {"train": 0.65, "val": 0.15, "test": 0.2}.items():
            assert inside[stratum, part] / total == pytest.approx(share, abs=0.05)


def test_single_images_are_dealt_to_within_one():
    labels = [0] * 40 + [1] * 20
    records = [record(f"{i:02d}", label=label) for i, label in enumerate(labels)]
    split = make_split(records, settings(val_fraction=0.25, test_fraction=0.25))
    table = collections.Counter(zip(split.parts, labels, strict=True))
    assert table == {
        ("train", 0): 20,
        ("train", 1): 10,
        ("val", 0): 10,
        ("val", 1): 5,
        ("test", 0): 10,
        ("test", 1): 5,
    }


@pytest.mark.parametrize("mode", ["grouped", "random", "kfold"])
def test_the_split_is_a_function_of_its_seed(mode):
    records = photos()
    first = make_split(records, settings(split=mode, split_seed=4))
    assert make_split(records, settings(split=mode, split_seed=4)) == first
    other = make_split(records, settings(split=mode, split_seed=5))
    assert other.parts != first.parts


def test_files_of_one_content_stay_together_whatever_they_are_called():
    records = photos(40)
    # a chain: group p000 shares a file with p010, and p010 another one with p020
    records += [record("copy_a", "p010", 0, content=records[0].image_sha256)]
    records += [record("b", "p010", 0, content="chain")]
    records += [record("c", "p020", 0, content="chain")]
    for mode in ("grouped", "kfold"):
        for seed in range(5):
            split = make_split(records, settings(split=mode, split_seed=seed))
            assert find_leaks(records, split.parts) == ([], [])
            names = [checked.record.group for checked in records]
            part_of = dict(zip(names, split.parts, strict=True))
            assert part_of["p000"] == part_of["p010"] == part_of["p020"]


def test_a_test_fraction_of_0_leaves_no_test_part():
    split = make_split(photos(), settings(test_fraction=0.0))
    assert len(split.indices("test")) == 0
    assert len(split.indices("val")) > 0


def share_error(strata, parts, fractions):
    """Root mean square over parts and strata of (share found - share wanted)."""
    table = np.array(
        [
            [(parts[strata == stratum] == part).mean() for stratum in np.unique(strata)]
            for part in range(len(fractions))
        ]
    )
    return np.sqrt(((table - np.array(fractions)[:, None]) ** 2).mean())


def test_dealing_comes_close_to_the_best_of_all_assignments():
    fractions = (0.6, 0.2, 0.2)
    random = np.random.default_rng(1)
    errors = []
    for seed in range(8):
        groups = np.repeat(np.arange(7), random.integers(1, 7, size=7))
        strata = (random.random(len(groups)) < 0.4).astype(np.int64)
        dealt = assign_groups(strata, groups, fractions, seed)
        every = itertools.product(range(3), repeat=7)  # 2187 assignments
        best = min(share_error(strata, np.array(a)[groups], fractions) for a in every)
        errors.append((share_error(strata, dealt, fractions), best))
    errors = np.array(errors)
    assert (errors[:, 0] <= errors[:, 1] + 0.1).all()
    assert errors[:, 0].mean() <= errors[:, 1].mean() + 0.04


def test_dealing_finds_the_exact_solution_where_groups_are_small():
    groups = np.arange(20)
    strata = np.repeat([0, 1], 10)
    dealt = assign_groups(strata, groups, (0.5, 0.3, 0.2), seed=3)
    for stratum in (0, 1):
        counts = np.bincount(dealt[strata == stratum], minlength=3)
        assert counts.tolist() == [5, 3, 2]


def masks(seed):
    """80 masks: every fifth clean, others up to 40 % of class 1, six with class 2."""
    found = []
    for i, amount in enumerate(np.random.default_rng(seed).integers(1, 410, 80)):
        pixels = (0, 0) if i % 5 == 4 else (int(amount), int(i < 7))
        item = record(f"{i:02d}", label=int(any(pixels)))
        counts = (1024 - sum(pixels), *pixels)
        found.append(dataclasses.replace(item, class_pixels=counts))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_every_part_has_its_share_of_rare_classes_and_of_foreground(seed):
    records = masks(seed)
    split = make_split(records, settings(split_seed=seed, val_fraction=0.2))
    amounts = np.array([item.foreground for item in records])
    for part in PARTS:
        inside = split.indices(part)
        assert any(records[i].class_pixels[2] for i in inside), part
        assert amounts[inside].mean() == pytest.approx(amounts.mean(), abs=0.03)


# Splits that come with the data.


def with_own_split(leaking=False):
    parts = ["train"] * 30 + ["test"] * 10
    groups = [f"g{i // 2}" for i in range(40)]
    if leaking:
        groups[0] = groups[39]
    return [
        record(f"{i:02d}", group, i % 2, part)
        for i, (group, part) in enumerate(zip(groups, parts, strict=True))
    ]


@pytest.mark.parametrize("mode", ["grouped", "published"])
def test_an_own_split_is_kept_and_validation_comes_from_train_only(mode):
    records = with_own_split()
    split = make_split(records, settings(split=mode, val_fraction=0.2))
    assert split.indices("test").tolist() == list(range(30, 40))
    assert len(split.indices("val")) == 6  # a fifth of 30
    assert split.indices("val").max() < 30
    assert find_leaks(records, split.parts) == ([], [])


def test_an_own_validation_part_is_kept():
    parts = ["train"] * 10 + ["val"] * 4 + ["test"] * 4
    records = [
        record(f"{i:02d}", label=i % 2, split=part) for i, part in enumerate(parts)
    ]
    assert make_split(records, settings()).parts == tuple(parts)


@pytest.mark.parametrize("mode", ["grouped", "published"])
@pytest.mark.parametrize(
    ("parts", "found"),
    [(["test"] * 12, "test"), (["test"] * 8 + ["val"] * 4, "val and test")],
)
def test_an_own_split_without_a_train_part_is_refused(mode, parts, found):
    records = [
        record(f"{i:02d}", label=i % 2, split=part) for i, part in enumerate(parts)
    ]
    error = refusal(records, split=mode)
    assert error.expected == "a published split with a train part"
    assert error.found == f"12 images, all of {found}"
    assert "--config.data.split=kfold" in error.fix
    make_split(records, settings(split="kfold"))  # what the fix promises


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({}, "--config.data.test_fraction=0.0"),
        ({"test_fraction": 0.0}, "a larger --config.data.val_fraction"),
        ({"split": "kfold", "num_folds": 2}, "a larger --config.data.val_fraction"),
    ],
)
def test_too_few_groups_name_an_option_that_helps(changes, fix):
    groups = "ab" if "split" in changes or not changes else "a"
    records = [record(f"{g}{i}", g, label=i % 2) for g in groups for i in range(8)]
    assert refusal(records, **changes).fix == f"more photos, finer groups, or {fix}"


def test_a_leaking_own_split_is_refused_with_the_way_out():
    error = refusal(with_own_split(leaking=True))
    assert "1 group(s) in two splits (g19)" in error.found
    assert "--config.data.split=published" in error.fix


def test_published_keeps_a_leaking_split_and_says_so():
    records = with_own_split(leaking=True)
    split = make_split(records, settings(split="published"))
    assert split.indices("test").tolist() == list(range(30, 40))
    assert len(split.notes) == 1
    assert "WARNING: this split leaks: 1 group(s)" in split.notes[0]


def test_copies_in_train_and_test_are_leaks_too():
    records = with_own_split()
    records[3] = record("03", "g1", 1, "train", content=records[35].image_sha256)
    assert "2 identical file(s) in two (03, 35)" in refusal(records).found
    split = make_split(records, settings(split="published"))
    assert "2 identical file(s)" in split.notes[0]


def test_published_needs_a_split_to_keep():
    assert refusal(photos(), split="published").fix == "--config.data.split=grouped"


def test_random_deals_single_images_and_warns_where_groups_straddle():
    records = photos()
    split = make_split(records, settings(split="random"))
    assert "WARNING: this split leaks" in split.notes[0]
    straddling, _ = find_leaks(records, split.parts)
    assert f"{len(straddling)} group(s)" in split.notes[0]
    alone = [record(f"{i:02d}", label=i % 2) for i in range(40)]
    assert make_split(alone, settings(split="random")).notes == ()


# Folds.


@pytest.mark.parametrize("num_folds", [2, 3, 4])
def test_the_test_folds_are_a_partition_and_validation_is_a_share_of_the_rest(
    num_folds,
):
    records = photos()
    options = dict(split="kfold", num_folds=num_folds, val_fraction=0.2)
    splits = [
        make_split(records, settings(**options, fold=fold)) for fold in range(num_folds)
    ]
    tested = np.concatenate([split.indices("test") for split in splits])
    assert sorted(tested.tolist()) == list(range(len(records)))
    for split in splits:
        assert find_leaks(records, split.parts) == ([], [])
        num_tested = len(split.indices("test"))
        assert num_tested / len(records) == pytest.approx(1 / num_folds, abs=0.02)
        share = len(split.indices("val")) / (len(records) - num_tested)
        assert share == pytest.approx(0.2, abs=0.04)


def test_more_folds_than_groups_are_refused():
    records = photos(2)
    assert len({item.record.group for item in records}) == 2
    error = refusal(records, split="kfold", num_folds=5)
    assert error.found == "2 group(s), none for fold 2, 3, 4"
    assert error.fix == "--config.data.num_folds=2"


def test_folds_deal_anew_what_comes_with_a_split():
    split = make_split(with_own_split(), settings(split="kfold"))
    assert split.indices("test").tolist() != list(range(30, 40))


# Fewer positives.


def test_some_training_positives_stay_in_use_and_the_fewer_are_among_the_more():
    records = photos()
    labels = np.array([item.label for item in records])
    whole, inside = make_split(records, settings()), set()
    for count in (5, 20, int(labels[whole.indices("train")].sum())):
        split = make_split(records, settings(num_positives=count))
        train = split.indices("train")
        positives = set(train[labels[train] == 1].tolist())
        assert len(positives) == count
        assert inside <= positives
        inside = positives
        assert set(train.tolist()) <= set(whole.indices("train").tolist())
        for part in ("val", "test"):
            np.testing.assert_array_equal(split.indices(part), whole.indices(part))
        unused = split.indices("unused")
        assert len(train) + len(unused) == len(whole.indices("train"))
        assert (labels[unused] == 1).all()


def test_more_positives_than_there_are_are_refused():
    records = photos()
    split = make_split(records, settings())
    count = sum(records[i].label for i in split.indices("train"))
    error = refusal(records, num_positives=count + 1)
    assert error.found == f"{count + 1}"
    assert error.fix == f"--config.data.num_positives={count}"


def test_what_a_file_leaves_unused_is_in_no_part_and_leaks_nothing(tmp_path):
    records = [record(name, "g" if name in "ae" else name) for name in "abcde"]
    rows = ["a,train", "b,train", "c,test", "d,val", "e,unused"]
    path = write_csv(tmp_path / "mine.csv", rows)
    split = make_split(records, settings(split=str(path)))
    assert split.parts == ("train", "train", "test", "val", "unused")
    assert split.notes == ()


# The file.


def write_csv(path, rows, columns="id,split"):
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def test_the_file_gives_the_split_back(tmp_path):
    records = photos(30)
    records[0] = record('with, comma "and" quotes', "ü/1", 0)
    split, path = make_split(records, settings()), tmp_path / "split.csv"
    write_split(path, records, split)
    assert read_split(path, records) == list(split.parts)
    assert path.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert [p.name for p in tmp_path.iterdir()] == ["split.csv"]
    other_order = records[::-1]
    assert read_split(path, other_order) == list(split.parts)[::-1]
    again = make_split(records, settings(split=str(path), split_seed=9))
    assert again == Split(split.parts)


def test_a_file_of_spreadsheet_programs_is_read(tmp_path):
    records = [record("a", label=0), record("b", label=0), record("c", label=0)]
    path = tmp_path / "mine.csv"
    path.write_bytes("\ufeffid,split\r\na,train\r\nb,val\r\nc,test\r\n".encode())
    assert read_split(path, records) == ["train", "val", "test"]


def test_a_file_of_other_data_is_refused_and_names_them(tmp_path):
    path = write_csv(tmp_path / "split.csv", ["a,train", "b,val", "old,test"])
    with pytest.raises(InputError) as caught:
        read_split(path, [record("a"), record("b"), record("new")])
    expected = "only in the dataset: new; only in the file: old"
    assert caught.value.found == expected


@pytest.mark.parametrize(
    ("rows", "columns", "found"),
    [
        (["a,train"], "name,part", "without them"),
        ([], "id,split", "without them"),
        (["a,train", "b,holdout"], "id,split", "holdout in"),
        (["a,train", "b"], "id,split", "in "),
        (["a", "b,holdout"], "id,split", "holdout in"),
        (["a,train", "a,test", "b,val"], "id,split", "a twice in"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, rows, columns, found):
    path = write_csv(tmp_path / "split.csv", rows, columns)
    with pytest.raises(InputError) as caught:
        read_split(path, [record("a"), record("b")])
    assert found in caught.value.found
    assert str(path) in caught.value.found


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(bytes(range(128, 256)))
    for wrong in (path, tmp_path / "none.csv", tmp_path):
        assert "a csv with the columns" in refusal([record("a")], split=str(wrong)).fix


def test_a_file_with_a_group_in_two_parts_is_refused(tmp_path):
    records = [record(name, "g" if name in "ac" else name) for name in "abcd"]
    rows = ["a,train", "b,train", "c,test", "d,val"]
    path = write_csv(tmp_path / "mine.csv", rows)
    error = refusal(records, split=str(path))
    assert "1 group(s) in two splits (g)" in error.found
    assert str(path) in error.fix


# Classes.


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_without_a_sample_of_some_class_is_refused(tmp_path, part):
    parts = {"train": 4, "val": 2, "test": 2}
    names = [(p, i) for p, count in parts.items() for i in range(count)]
    records = [
        record(f"{p}{i}", label=0 if p == part else i % 2, split=p) for p, i in names
    ]
    error = refusal(records)
    assert error.expected == f"every class in the {part} part"
    assert "no image of class 1" in error.found


def test_a_published_test_part_may_lack_a_class():
    parts = {"train": 4, "val": 2, "test": 2}
    names = [(p, i) for p, count in parts.items() for i in range(count)]
    records = [
        record(f"{p}{i}", label=1 if p == "test" else i % 2, split=p) for p, i in names
    ]
    split = make_split(records, settings())
    assert len(split.indices("test")) == 2


def test_too_few_groups_for_every_part_are_refused():
    records = [record(f"{i}", label=i % 2, group="one photo") for i in range(8)]
    error = refusal(records)
    assert "1 group(s), none left for val, test" in error.found


def test_a_set_of_one_label_needs_no_other():
    records = [record(f"{i:02d}", label=1) for i in range(20)]
    split = make_split(records, settings())
    assert all(len(split.indices(part)) for part in PARTS)


def test_lookalikes_in_other_parts_than_train_are_named(tmp_path):
    """c looks like a and d like b; only those not trained on beside them are told."""
    parts = {"a": "train", "b": "test", "c": "val", "d": "test", "e": "train"}
    looks = {"c": "a", "d": "b"}
    records = [
        dataclasses.replace(record(name), looks_like=looks.get(name, ""))
        for name in parts
    ]
    path = tmp_path / "split.csv"
    write_split(path, records, Split(tuple(parts.values())))
    (note,) = make_split(records, settings(split=str(path))).notes
    assert note.startswith("WARNING: images of val and test that show the same")
    assert "1 (c like a)" in note


def test_a_first_image_in_test_is_told_when_its_copy_is_trained_on(tmp_path):
    records = [record("a"), dataclasses.replace(record("b"), looks_like="a")]
    records += [record("c"), record("d")]
    path = tmp_path / "split.csv"
    write_split(path, records, Split(("test", "train", "val", "train")))
    (note,) = make_split(records, settings(split=str(path))).notes
    assert "1 (a like b)" in note
