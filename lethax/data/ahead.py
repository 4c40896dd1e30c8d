"""Read what comes next in a thread, while what is there is used."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def prefetched(items: Iterable[T], ahead: int = 2) -> Iterator[T]:
    """Yield the same items, of which a thread makes the next ones while one is used. Its errors are raised here, in their place."""
    left, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        try:
            waiting = deque(pool.submit(next, left, end) for _ in range(ahead))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, left, end))
                yield item  # type: ignore[misc]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Ahead(Generic[T]):
    """Parts of streams by their numbers, the ones that come next while others are used.

    start: makes the parts of a stream from number `first` on, `count` numbers each. What is taken depends on the stream and the
    numbers alone, whatever was taken before; only the time that it takes does.
    """

    def __init__(self, start: Callable[[Any, int, int], Iterator[T]]) -> None:
        self._start = start
        self._next: tuple[Hashable, int, int] | None = None
        self._parts: Iterator[T] = iter(())

    def take(self, stream: Hashable, first: int, count: int) -> T:
        """The part of the numbers `first` … `first` + `count` − 1."""
        if self._next != (stream, first, count):
            self._parts = prefetched(self._start(stream, first, count))
        self._next = None  # after an error the stream begins anew
        part = next(self._parts)
        self._next = stream, first + count, count
        return part
