"""Skeletons of masks, as branches between nodes: cracks without their width.

Thinning leaves lines of one pixel. Where a pixel has three neighbours or more, lines
meet; such pixels that touch make one node. A free end is a node, too. What lies between
two nodes is a branch.

Corners of blunt ends and bumps of a rough edge also leave lines. A line that ends no
farther from its node than twice the radius there (the distance to the edge of the
mask), its own radius included, is no branch and goes: it sticks out by less than half
the width. Corners of a square end reach 1.41 times the radius.

Source: thinning as in https://doi.org/10.1006/cgip.1994.1042 (Lee, Kashyap and Chu), by
scikit-image; branches and pruning are our own. The other method of scikit-image, of
Zhang and Suen, deletes diagonal lines.
"""

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

TOUCHING = np.ones((3, 3), bool)
"""Pixels that share a corner are neighbours."""

REACH = 2.0
OFFSETS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


@dataclasses.dataclass(eq=False)
class Branch:
    """A line of a skeleton.

    Attributes:
      line: [n, 3] float64: y, x and the radius there, from its first node to its last.
      nodes: the ids of both; one id twice where it comes back to its start.
    """

    line: np.ndarray
    nodes: tuple[int, int]

    def seen_from(self, node: int) -> "Branch":
        """The branch, turned round if need be to begin at one of its nodes."""
        if self.nodes[0] == node:
            return self
        return Branch(self.line[::-1], self.nodes[::-1])


def skeletonize(mask: np.ndarray) -> np.ndarray:
    """Lines of one pixel in the middle of a mask [H, W] bool, connected as it is."""
    from skimage.morphology import skeletonize  # 0.3 s, which only reports need

    return skeletonize(mask, method="lee")


def branches_of(
    skeleton: np.ndarray, radius: np.ndarray, spacing: tuple[float, float]
) -> list[Branch]:
    """The branches of one connected skeleton that leave the thickness of the mask.

    Args:
      skeleton: [H, W] bool.
      radius: [H, W] float, on the skeleton the distance to the edge of the mask.
      spacing: height and width of a pixel, in the unit of `radius`.

    Returns:
      none for a blob that has no direction. Where pruning leaves two branches at a node
      they become one.
    """
    branches = _trace(skeleton, radius, np.asarray(spacing))
    while True:
        left = _join(_prune(branches, max(spacing)))
        if len(left) == len(branches):
            return left
        branches = left


def count_ends(branches: list[Branch]) -> collections.Counter[int]:
    """Ends of branches by node; where there is one, the branch ends freely."""
    return collections.Counter(node for branch in branches for node in branch.nodes)


def _prune(branches: list[Branch], margin: float) -> list[Branch]:
    ends = count_ends(branches)

    def stays_inside(branch: Branch) -> bool:
        if ends[branch.nodes[0]] < 3 or ends[branch.nodes[1]] > 1:
            return False
        (y, x, radius), tip = branch.line[0], branch.line[-1]
        return np.hypot(tip[0] - y, tip[1] - x) + tip[2] <= REACH * radius + margin

    return [
        branch
        for branch in branches
        if not any(stays_inside(branch.seen_from(node)) for node in branch.nodes)
    ]


def _join(branches: list[Branch]) -> list[Branch]:
    """Makes one branch of two where no other meets them."""
    at = collections.defaultdict(list)
    for branch in branches:
        for node in branch.nodes:
            at[node].append(branch)
    for node in list(at):
        meeting = at[node]
        if len(meeting) != 2 or meeting[0] is meeting[1]:
            continue
        one, other = (branch.seen_from(node) for branch in meeting)
        line = np.concatenate([one.line[::-1], other.line[1:]])
        joined = Branch(line, (one.nodes[1], other.nodes[1]))
        for old, end in zip(meeting, joined.nodes, strict=True):
            at[end] = [joined if branch is old else branch for branch in at[end]]
        at[node] = []
    return list({id(branch): branch for row in at.values() for branch in row}.values())


def _trace(skeleton: np.ndarray, radius: np.ndarray, spacing) -> list[Branch]:
    """All lines of the skeleton; they begin and end in the middle of their nodes."""
    pixels = np.argwhere(skeleton)
    places = np.column_stack([pixels * spacing, radius[skeleton]])
    neighbours = _neighbours(skeleton, pixels)
    node_of = _number_nodes(skeleton.shape, pixels, neighbours)
    nodes = [
        [*places[node_of == node, :2].mean(0), places[node_of == node, 2].max()]
        for node in range(node_of.max(initial=-1) + 1)
    ]
    along = {
        i: [j for j in row if node_of[j] < 0]
        for i, row in enumerate(neighbours)
        if node_of[i] < 0
    }
    branches = []
    for path in _paths(along):
        first, last = (
            sorted({int(node_of[j]) for j in neighbours[i]} - {-1})
            for i in (path[0], path[-1])
        )
        if len(path) == 1:
            first, last = first[:1], first[1:]
        line = [*(nodes[n] for n in first), *places[path], *(nodes[n] for n in last)]
        if len(line) == 1:
            continue
        ends = [
            n[0] if n else len(nodes) + i
            for n, i in ((first, path[0]), (last, path[-1]))
        ]
        if not first and not last and len(path) > 2 and path[0] in along[path[-1]]:
            line, ends = [*line, line[0]], [ends[0], ends[0]]
        branches.append(Branch(np.asarray(line), tuple(ends)))
    return branches


def _neighbours(skeleton: np.ndarray, pixels: np.ndarray) -> list[list[int]]:
    """Positions in `pixels` of the neighbours of each."""
    index = np.full(np.add(skeleton.shape, 2), -1)
    index[1:-1, 1:-1][skeleton] = np.arange(len(pixels))
    rows, columns = pixels.T + 1
    table = np.stack([index[rows + y, columns + x] for y, x in OFFSETS], axis=1)
    return [[j for j in row if j >= 0] for row in table.tolist()]


def _number_nodes(shape, pixels: np.ndarray, neighbours) -> np.ndarray:
    """The node that each pixel belongs to, -1 on lines."""
    meets = np.array([len(row) > 2 for row in neighbours], bool)
    picture = np.zeros(shape, bool)
    picture[tuple(pixels[meets].T)] = True
    numbered, _ = ndimage.label(picture, TOUCHING)
    return numbered[tuple(pixels.T)] - 1


def _paths(along: dict[int, list[int]]) -> Iterator[list[int]]:
    """Lines of pixels with at most two neighbours; closed ones begin anywhere."""
    unseen = set(along)
    ends = [i for i, row in along.items() if len(row) < 2]
    for start in [*ends, *along]:
        path, here = [], start
        while here in unseen:
            unseen.remove(here)
            path.append(here)
            here = next((j for j in along[here] if j in unseen), None)
        if path:
            yield path
