"""A secret that cannot be printed by accident.

The invariant: the text leaves this type only through `reveal()`, so a search for that word
finds every place where a key is used.
"""

from typing import Never


class Secret:
    """A credential. `str`, `repr` and formatting give stars; pickling is refused."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The credential itself, for the one place that sends or stores it."""
        return self._text

    @property
    def last_four(self) -> str:
        """The last four characters for display; stars where the secret is too short to show any."""
        return self._text[-4:] if len(self._text) >= 12 else "****"

    def __repr__(self) -> str:
        return "Secret('****')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> Never:
        raise TypeError("a Secret is not pickled")
