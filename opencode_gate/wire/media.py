"""Inline media in a body, told apart from its text by their length alone.

The idea: media are base64, hence long runs of few different bytes, so to find them it is enough
to look at a few bytes here and there. The invariant: no run of `_RUN_BYTES_MIN` is overlooked.
"""

import re
from functools import reduce
from operator import and_

_BODY_BYTES_MIN = 16 * 1024
"""In less than that, media cannot put an estimate out by much."""
_RUN_BYTES_MIN = 2048
_STEP_BYTES = _RUN_BYTES_MIN // 2
_LOOKED_AT = range(8)
"""Behind each step; it is seldom that all of it is one word of a text."""
_MEDIA_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_IS_MEDIA = bytes(0xFF if byte in _MEDIA_BYTES else 0 for byte in range(256))
_MEDIA = re.compile(rb"[A-Za-z0-9+/=_-]*")
_HALF_RUN = re.compile(rb"[A-Za-z0-9+/=_-]{%d}" % _STEP_BYTES)


def media_bytes(body: bytes | memoryview) -> int:
    """How many bytes of a body, or of a part of one, are inline media."""
    if len(body) < _BODY_BYTES_MIN:
        return 0
    places = _places(body)
    if not places:
        return 0
    body = bytes(body)
    # The names are looked for in all of the body, hence last.
    if not any(_HALF_RUN.match(body, place) for place in places) or (
        b"base64" not in body and b"inlineData" not in body
    ):
        return 0
    media, end = 0, 0
    for place in places:
        if place >= end:
            before = body[max(end, place - _STEP_BYTES) : place]
            start = place - len(before) + len(before.rstrip(_MEDIA_BYTES))
            match = _MEDIA.match(body, place)
            end = place if match is None else match.end()
            media += end - start if end - start >= _RUN_BYTES_MIN else 0
    return media


def _places(body: bytes | memoryview) -> list[int]:
    """Where a run may be: one of these places is in the first half of each."""
    last = len(body) - _LOOKED_AT[-1]
    seen = [bytes(body[at : last + at : _STEP_BYTES]).translate(_IS_MEDIA) for at in _LOOKED_AT]
    in_all = reduce(and_, map(int.from_bytes, seen))
    if not in_all:
        return []
    flags = in_all.to_bytes(len(seen[0]))
    return [number * _STEP_BYTES for number, flag in enumerate(flags) if flag]
