r"""Foreign text made fit for a terminal, a log line or a table cell. Pure; the one place that says what is escaped.

Node names, keys, states and servers' words can hold escape sequences, C1 controls, bidirectional overrides, line breaks
and lone surrogates: to print them as they are lets a stored object move the cursor, rewrite lines or hide text. Escapes
are JSON's (`\u001b`, beyond U+FFFF as two), so escaping a JSON text as a whole leaves its value as it was.
"""

from __future__ import annotations

import codecs
from unicodedata import category

ESCAPING = "s3_checkpoint.json_escapes"
"""The name of an error handler for text streams: what their encoding cannot hold is written as an escape."""


def printable(text: str, *, keep: str = "") -> str:
    r"""`text` with every character escaped that is neither visible nor a space; those in `keep` stay.

    Escaped are controls (C0, DEL, C1), format characters (bidirectional and zero-width ones, tags), line and paragraph
    separators, surrogates, private and unassigned code points. No character is dropped: what was there can be seen.
    """
    if text.isprintable():
        return text
    return text.translate({ord(char): _escape(char) for char in set(text) if char not in keep and not _is_plain(char)})


def _is_plain(char: str) -> bool:
    return char.isprintable() or category(char) == "Zs"  # other widths of space, as East Asian text has them


def _escape(char: str) -> str:
    code = ord(char)
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


codecs.register_error(ESCAPING, _escape_unencodable)
