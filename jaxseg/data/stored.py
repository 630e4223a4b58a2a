"""The result of a check on the disk: an unchanged folder is not opened again."""

import dataclasses
import hashlib
import json
from pathlib import Path

from jaxseg import files
from jaxseg.data.check import Checked, CheckedRecord
from jaxseg.data.mask_values import MaskEncoding
from jaxseg.datasets.record import Listing, MaskFile, Record
from jaxseg.schema import freeze


def fingerprint(listing: Listing) -> str:
    """Hex sha256 of a listing and of its files' sizes and times, opening none of them.

    The same fingerprint means that `check` with the same options need not run again.
    """
    options = [listing.classes, listing.mask_values, listing.max_blank]
    digest = hashlib.sha256(json.dumps([*options, listing.skipped]).encode())
    for record in listing.records:
        stats = [_stat(file) for file in (record.image, record.mask)]
        own = (record.label, record.group, record.split, record.source)
        facts = [record.id, stats, *own]
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()


def read(path: Path, listing: Listing) -> Checked | None:
    """What `write` left for the listing; None without a file, or with a damaged one."""
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), listing)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, checked: Checked) -> None:
    """Stores the result of a check."""
    with files.atomic_file(path) as file:
        json.dump(to_json(checked), file)


def to_json(checked: Checked) -> dict:
    """A plain dict for `json.dump`, of records the id only; see `from_json`."""
    records = [{**vars(item), "record": item.record.id} for item in checked.records]
    encoding = checked.encoding and dataclasses.asdict(checked.encoding)
    return {**vars(checked), "records": records, "encoding": encoding}


def from_json(data: dict, listing: Listing) -> Checked:
    """The `Checked` that `to_json` wrote, for the listing that was checked."""
    by_id = {record.id: record for record in listing.records}
    encoding = data["encoding"]
    return Checked(
        records=tuple(
            _record_from_json(item, by_id[item["record"]]) for item in data["records"]
        ),
        encoding=encoding
        and MaskEncoding(**{name: freeze(value) for name, value in encoding.items()}),
        notes=tuple(data["notes"]),
        skipped=tuple((name, reason) for name, reason in data["skipped"]),
        content_hash=data["content_hash"],
    )


def _record_from_json(item: dict, record: Record) -> CheckedRecord:
    lists = {name: tuple(item[name]) for name in ("size", "class_pixels")}
    return CheckedRecord(**{**item, **lists, "record": record})


def _stat(file: MaskFile | None) -> tuple:
    if not isinstance(file, Path):
        return (repr(file),) if file else ()
    try:
        stat = file.stat()
    except OSError:
        return (str(file), "missing")
    return (str(file), stat.st_size, stat.st_mtime_ns)
