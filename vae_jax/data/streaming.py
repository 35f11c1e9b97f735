"""From images to what the compiled steps are given: kept on the device, or streamed from the host.

A training is cut into pieces of an epoch. Where the images fit on the device each piece is handed
all of them and the epoch's order. Where they do not, a thread gathers the rows of the next piece
on the host and sends them off while the device is busy with this one: the batches are the same.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from vae_jax.memory import default_limit
from vae_jax.parallel import devices

BLOCK = 2**26  # bytes streamed at a time: long enough to hide the return to Python
T = TypeVar("T")


class Piece(NamedTuple):
    """Some steps of an epoch, and whether a chunk ends with them."""

    epoch: int
    first: int
    count: int
    ends: bool


Inputs = tuple[Any, Any, int, int]  # data, order, first, count: see `training.make_run`
OrderOf = Callable[[int], Any]  # epoch -> int [steps, batch]


def pieces(at: int, total: int, per_epoch: int, chunk: int, longest: int) -> Iterator[Piece]:
    """The steps `at` to `total`, cut where epochs and chunks end and at `longest` steps."""
    while at < total:
        epoch, first = divmod(at, per_epoch)
        left = min(chunk - first % chunk, per_epoch - first, total - at)
        count = min(left, longest)
        yield Piece(epoch, first, count, count == left)
        at += count


def steps_per_block(data: Any, batch_size: int, limit: float | None, longest: int) -> int:
    """How many steps' images, at most `longest`, are streamed at a time; 0 where `data` is within
    `limit` bytes and none need be. Two blocks are on the device at once: in use, and arriving.
    """
    limit = default_limit() if limit is None else limit
    leaves = jax.tree.leaves(data)
    if sum(a.nbytes for a in leaves) <= limit:
        return 0
    step = batch_size * sum(a.nbytes // len(a) for a in leaves)
    return max(1, min(longest, int(min(BLOCK, limit / 2)) // step))


def feed(
    data: Any, order_of: OrderOf, cut: Callable[[int], Iterator[Piece]], steps: int
) -> Iterator[tuple[Piece, Inputs]]:
    """What `training.make_run` is given for each piece; streamed `steps` at a time unless 0."""
    if steps:
        return prefetched(streamed(data, order_of, cut(steps), steps, devices.placer(cut=1)))
    return resident(data, order_of, cut(sys.maxsize))


def resident(data: Any, order_of: OrderOf, todo: Iterator[Piece]) -> Iterator[tuple[Piece, Inputs]]:
    """Each piece with all of the data, on the device."""
    data, epoch, order = devices.put(data), None, None
    for piece in todo:
        if piece.epoch != epoch:
            epoch, order = piece.epoch, order_of(piece.epoch)
        yield piece, (data, order, piece.first, piece.count)


def streamed(
    data: Any,
    order_of: OrderOf,
    todo: Iterator[Piece],
    steps: int,
    place: devices.Place,
) -> Iterator[tuple[Piece, Inputs]]:
    """Each piece, at most `steps` long, with its batches in order: arrays [steps, batch, ...].

    All pieces are filled up to `steps`, so that a shorter one compiles nothing. A new array each
    time, since a CPU's device may use it where it is.
    """
    data, epoch, order = jax.tree.map(np.asarray, data), None, np.zeros((0, 0), int)
    for piece in todo:
        if piece.epoch != epoch:
            epoch, order = piece.epoch, np.asarray(order_of(piece.epoch))
        rows = np.zeros((steps, order.shape[1]), order.dtype)
        rows[: piece.count] = order[piece.first : piece.first + piece.count]

        def gathered(a: np.ndarray) -> jax.Array:
            shape = (*rows.shape, *a.shape[1:])
            return place(shape, lambda part: np.take(a, rows[part[:2]], axis=0))

        block = jax.tree.map(gathered, data)
        yield piece, (block, np.arange(steps, dtype=np.int32), 0, piece.count)


class _End:
    """What follows the last item."""


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in a thread while the one before it is in use."""
    pool, end = ThreadPoolExecutor(1), _End()
    try:
        waiting = pool.submit(next, items, end)
        while not isinstance(item := waiting.result(), _End):
            waiting = pool.submit(next, items, end)
            yield item
    finally:
        pool.shutdown(wait=False)  # an item under way is finished and dropped
