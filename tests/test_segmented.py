"""Mixed supervision: the masks in use, by number or by a list of images."""

import pickle

import numpy as np
import pytest
from test_surface_datasets import checked, dagm, kolektor, scan, settings

from jaxseg.config import to_dict
from jaxseg.data.segmented import choose_masks
from jaxseg.errors import InputError


@pytest.fixture
def records(tmp_path):
    """Six items of four photos; Part1 of each has a defect."""
    return checked(scan("kolektor_sdd", kolektor(tmp_path / "data"))).records


def shown(records, chosen):
    """Ids of the defects whose mask is in use."""
    return [
        item.record.id
        for item, hidden in zip(records, chosen.hidden, strict=True)
        if item.label and not hidden
    ]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return settings(segmented_file=str(path))


def refuse(records, data):
    with pytest.raises(InputError) as caught:
        choose_masks(records, np.arange(len(records)), data)
    return caught.value


TRAIN = np.arange(16)  # the items kos01 to kos04


def test_without_a_choice_all_masks_are_in_use(records):
    chosen = choose_masks(records, TRAIN, settings())
    assert (chosen.hidden, chosen.count, chosen.notes) == (None, 4, ())


def test_a_number_hides_the_other_training_defects_and_nothing_else(records):
    for count in range(5):
        chosen = choose_masks(records, TRAIN, settings(num_segmented=count))
        assert chosen.count == count
        hidden = np.flatnonzero(chosen.hidden)
        assert len(hidden) == 4 - count
        assert all(records[i].label and i < 16 for i in hidden)
        assert f"{count} of 4 training images with a defect" in chosen.notes[0]
    few, more = (
        shown(records, choose_masks(records, TRAIN, settings(num_segmented=n)))
        for n in (1, 3)
    )
    assert {*few} < {*more}  # a larger number keeps what a smaller one has


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        ("kos02/Part1\nkos04/Part1\n", 0),
        ("\ufeffid\nkos02/Part1.jpg\n\n kos04/Part1.jpg \nkos01/Part0\n", 0),
        # Groups, as the published lists have them; that of kos06 has four images.
        ('"kos02"\nkos04\nkos06\n', 4),
    ],
)
def test_a_list_names_the_masks_in_use(records, tmp_path, text, elsewhere):
    data = write(tmp_path / "list.csv", text)
    chosen = choose_masks(records, TRAIN, data)
    inside = [name for name in shown(records, chosen) if name < "kos05"]
    assert inside == ["kos02/Part1", "kos04/Part1"]
    assert chosen.count == 2
    assert not chosen.hidden[16:].any()
    assert len(chosen.notes) == 1 + (elsewhere > 0)
    assert not elsewhere or chosen.notes[1].startswith(f"{elsewhere} of the images")


def test_a_list_may_leave_the_folders_out(tmp_path):
    found = checked(scan("dagm2007", dagm(tmp_path / "data", 1), class_id=1)).records
    train = np.array([i for i, c in enumerate(found) if c.record.split == "train"])
    data = write(tmp_path / "list.txt", "0002.PNG\n0000.PNG\n")
    chosen = choose_masks(found, train, data)
    hidden = [found[i].record.id for i in np.flatnonzero(chosen.hidden)]
    assert hidden == ["Class1/Train/0005"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kos02/Part1\nkos02/Part9\nx\n", "2 of 3 are none: kos02/Part9, x"),
        ("id,flag\nkos02/Part1,True\n", "with the lines id,flag, kos02/Part1,True"),
        ("\n\n", "is empty"),
    ],
)
def test_lists_that_cannot_be_read(records, tmp_path, text, words):
    assert words in refuse(records, write(tmp_path / "list.txt", text)).found


def test_a_missing_list(records, tmp_path):
    error = refuse(records, settings(segmented_file=str(tmp_path / "none.txt")))
    assert "no file" in error.found


@pytest.mark.parametrize("name", ["split_53.pyb", "split"])
def test_a_pickle_is_not_opened_and_the_error_says_how_to_convert_it(
    records, tmp_path, name, capfd
):
    path = tmp_path / name
    samples = [("kos01", True), ("kos02", False), ("kos03", True)]
    path.write_bytes(pickle.dumps((samples, [])))
    error = refuse(records, settings(segmented_file=str(path)))
    assert "a pickle, which is never opened here" in error.found
    # The command in the message does what it says.
    code = error.fix.split('python3 -c "')[1].split('" > segmented.txt')[0]
    exec(compile(code, "fix", "exec"), {})
    assert capfd.readouterr().out == "kos01\nkos03\n"


def test_more_masks_than_there_are(records):
    with pytest.raises(InputError, match="at most 4") as caught:
        choose_masks(records, TRAIN, settings(num_segmented=5))
    assert caught.value.fix == "--config.data.num_segmented=4"


def test_a_number_and_a_list_exclude_each_other(tmp_path):
    from test_loop import parse, tree

    record = tree(tmp_path)
    record["data"] |= dict(num_segmented=3, segmented_file="list.txt")
    with pytest.raises(InputError) as caught:
        parse(record)
    assert "only one of num_segmented and segmented_file" in caught.value.found
    record["data"] |= dict(num_segmented=None)
    assert to_dict(parse(record))["data"]["segmented_file"] == "list.txt"
