"""The page of a data check: everything escaped, everything said, nothing from afar."""

import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jaxseg.data.audit import Table
from jaxseg.errors import InputError
from jaxseg.report import page
from jaxseg.report.check_page import Findings, print_findings, write_findings

HOSTILE = "<script>alert(1)</script>&\"'"
TABLE = Table("images", ("part", "images"), (("train", 1200), (HOSTILE, 0.125)))
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


class Elements(HTMLParser):
    """Names of the elements, their attributes, and the text outside of the style."""

    def __init__(self, text):
        super().__init__()
        self.names, self.attributes, self.text, self.open = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def findings(**changes):
    values = dict(
        title=HOSTILE,
        notes=("all is well", f"WARNING: look at {HOSTILE}", "more"),
        tables=(TABLE,),
        pictures={"some samples": Image.fromarray(NOISE)},
    )
    return Findings(**values | changes)


def read(folder):
    elements = Elements((folder / "check.html").read_text(encoding="utf-8"))
    assert elements.open == []
    return elements


def test_everything_is_on_the_page_and_nothing_runs(tmp_path):
    write_findings(findings(), tmp_path)
    elements = read(tmp_path)
    for text in ("all is well", f"look at {HOSTILE}", "more", "1,200", "0.12"):
        assert text in elements.text
    assert elements.names.count("td") == 4
    assert "script" not in elements.names
    assert elements.text.count(HOSTILE) == 4  # title twice, warning, table
    assert "Warnings to decide on: 1." in elements.text


def test_the_page_needs_nothing_else(tmp_path):
    write_findings(findings(), tmp_path)
    sources = [v for name, v in read(tmp_path).attributes if name in ("src", "href")]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/jpeg;base64,")
    assert {path.name for path in tmp_path.iterdir()} == {
        "check.html",
        "check.json",
        "some_samples.png",
    }
    with Image.open(tmp_path / "some_samples.png") as kept:
        np.testing.assert_array_equal(np.asarray(kept), NOISE)


def test_a_problem_is_told_with_its_fix(tmp_path):
    problem = InputError("masks", "none", "--config.data.mask_dir=labels, or draw some")
    write_findings(Findings("mine", problem), tmp_path)
    elements = read(tmp_path)
    assert "must be mended" in elements.text
    assert "expected: masks" in elements.text
    start = elements.names.index("code")
    assert start
    stored = json.loads((tmp_path / "check.json").read_text())
    assert stored["problem"] == {
        "expected": "masks",
        "found": "none",
        "fix": "--config.data.mask_dir=labels, or draw some",
    }


def test_json_has_the_numbers_unrounded(tmp_path):
    write_findings(findings(), tmp_path)
    stored = json.loads((tmp_path / "check.json").read_text())
    assert stored["problem"] is None
    assert stored["warnings"] == [f"look at {HOSTILE}"]
    assert stored["remarks"] == ["all is well", "more"]
    assert stored["tables"] == [
        {
            "title": "images",
            "header": ["part", "images"],
            "rows": [["train", 1200], [HOSTILE, 0.125]],
        }
    ]


def test_the_terminal_ends_with_the_warnings():
    out = io.StringIO()
    print_findings(findings(), Console(file=out, width=200))
    lines = out.getvalue().rstrip().splitlines()
    assert lines[-3:] == ["- all is well", "- more", f"- WARNING: look at {HOSTILE}"]


@pytest.mark.parametrize("text", ["--config.data.crop=none", "a --config.x.y=(1,"])
def test_options_are_code(text):
    found = page.bullets([text])
    assert "<code>--config." in found
    assert Elements(found).text == text
