"""Deals whole groups so that every part gets its share of every class."""

from collections.abc import Sequence

import numpy as np

from jaxseg.data.check import CheckedRecord


def assign_groups(
    strata: np.ndarray, groups: np.ndarray, fractions: Sequence[float], seed: int
) -> np.ndarray:
    """Deals whole groups so that every part gets its share of every stratum.

    First the groups that hold much of some stratum, in random order within a factor of
    two; each goes to the part where the sum over strata of squared relative deviations
    from the wanted counts shrinks most.

    Args:
      strata: [n] or [n, S] int, from 0; each column is a way to stratify.
      groups: [n] int, from 0.
      fractions: share of every part; adds up to 1.
      seed: of the order; another one gives another split of the same quality.

    Returns:
      [n] int, the part of every sample.
    """
    columns = strata.reshape(len(groups), -1).T
    counts = np.zeros((groups.max() + 1, len(columns), strata.max() + 1))
    for number, column in enumerate(columns):
        np.add.at(counts, (groups, number, column), 1)
    counts = counts.reshape(len(counts), -1)
    totals = np.maximum(counts.sum(0), 1)
    wanted = np.asarray(fractions)[:, None] * totals  # [parts, strata]
    have = np.zeros_like(wanted)
    part_of_group = np.zeros(len(counts), np.int64)
    magnitude = np.floor(np.log2((counts / totals).max(1)))
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    for group in shuffled[np.argsort(-magnitude[shuffled], kind="stable")]:
        before = (((have - wanted) / totals) ** 2).sum(1)
        after = (((have + counts[group] - wanted) / totals) ** 2).sum(1)
        part = np.argmin(after - before)
        have[part] += counts[group]
        part_of_group[group] = part
    return part_of_group[groups]


def strata_of(records: Sequence[CheckedRecord]) -> np.ndarray:
    """[n, S]: the label; source with label; of masks their classes and foreground.

    The label by itself keeps rare classes in every part where a source has too few.
    """
    by_label = [("", checked.label) for checked in records]
    by_source = [(checked.record.source, checked.label) for checked in records]
    columns = []
    for keys in (by_label, by_source):
        order = {key: index for index, key in enumerate(sorted(set(keys)))}
        columns.append([order[key] for key in keys])
    if any(checked.class_pixels for checked in records):
        columns += [_amounts(records), *_presences(records)]
    return np.asarray(columns, np.int64).T


def _amounts(records: Sequence[CheckedRecord]) -> np.ndarray:
    """0 without any foreground, else 1 to 4 by the quarters of its share."""
    shares = np.array([checked.foreground or 0.0 for checked in records])
    if not shares.any():
        return np.zeros(len(shares), np.int64)
    quarters = np.quantile(shares[shares > 0], (0.25, 0.5, 0.75))
    return np.where(shares > 0, 1 + np.searchsorted(quarters, shares), 0)


def _presences(records: Sequence[CheckedRecord]) -> list[list[bool]]:
    """Of every class but the background, where there are several, who has it."""
    pixels = [checked.class_pixels for checked in records]
    num_classes = max(map(len, pixels))
    if num_classes == 2:  # the label says it
        return []
    return [[bool(p) and p[k] > 0 for p in pixels] for k in range(1, num_classes)]


def components_of(records: Sequence[CheckedRecord], *, by_group: bool) -> np.ndarray:
    """Group number per record; records of identical content share theirs.

    Union-find over the groups (or, for by_group=False, the single images).
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    first_with: dict[str, str] = {}
    names = [c.record.group if by_group else c.record.id for c in records]
    for name, checked in zip(names, records, strict=True):
        twin = first_with.setdefault(checked.image_sha256, name)
        parent[root(name)] = root(twin)
    numbers: dict[str, int] = {}
    return np.asarray([numbers.setdefault(root(n), len(numbers)) for n in names])
