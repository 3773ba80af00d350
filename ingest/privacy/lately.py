"""What was found in texts lately, so that what a session says again is not looked through again."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from ingest.privacy.kinds import Span


class Lately:
    """By texts' digests, not the texts. The text longest unheard goes first. Safe to share between threads."""

    def __init__(self, max_items: int) -> None:
        """`max_items` is how many texts and places in them are known at most."""
        self._max_items, self._num_items = max_items, 0
        self._known: OrderedDict[bytes, tuple[Span, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, text: str, look: Callable[[], tuple[Span, ...]]) -> tuple[Span, ...]:
        """What was found in `text`; `look` says it the first time."""
        key = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        found = look()
        with self._lock:
            self._num_items += 1 + len(found) if key not in self._known else 0
            self._known[key] = found
            while self._num_items > self._max_items:
                _, oldest = self._known.popitem(last=False)
                self._num_items -= 1 + len(oldest)
        return found
