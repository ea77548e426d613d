"""Bodies compressed and, within a bound, decompressed: gzip and zstd, named as in `Content-Encoding`."""

from __future__ import annotations

from types import ModuleType

from s3_checkpoint.errors import ConfigurationError

_CHUNK = 256 * 1024
_PART = 16 * 1024
_GZIP_MEMBERS = 1000
"""Honest data has one. Millions of empty ones would cost minutes before they came to one byte."""
_GZIP_WINDOW = 31
"""zlib's way to say: gzip framing, 32 KiB window."""
_ZSTD_WINDOW = 8 * 1024 * 1024
"""The window every decoder should allow (RFC 8878); a frame that asks for more memory is refused."""


def compress(body: bytes, encoding: str | None) -> bytes:
    """`body` in the content encoding named; the same bytes give the same bytes."""
    if encoding == "gzip":
        import gzip

        return gzip.compress(body, compresslevel=6, mtime=0)
    if encoding == "zstd":
        return bytes(_zstandard().ZstdCompressor().compress(body))
    if encoding is None:
        return body
    raise ConfigurationError(f"compression must be 'gzip', 'zstd' or None, not {encoding!r}")


def decompress(body: bytes, encoding: str | None, limit: int) -> bytes | bytearray:
    """The body behind a `Content-Encoding` header, of at most `limit` bytes.

    Raises `ValueError` saying why, for an encoding it does not know, damaged data, or more than `limit` bytes: that is
    found out before more than `limit` bytes are held.
    """
    # Stores hand back `aws-chunked`, which describes the upload, in front of the encoding that is ours.
    names = [name.strip().lower() for name in (encoding or "").split(",")]
    names = [name for name in names if name not in ("", "identity", "aws-chunked")]
    if not names:
        return body
    if names == ["gzip"]:
        return _gunzip(body, limit)
    if names == ["zstd"]:
        return _unzstd(body, limit)
    raise ValueError(f"its Content-Encoding {ascii(encoding)[:80]} is neither gzip nor zstd")


def _gunzip(body: bytes, limit: int) -> bytearray:
    import zlib

    out = bytearray()
    rest = memoryview(body)
    member, data, members = zlib.decompressobj(_GZIP_WINDOW), b"", 1
    try:
        while True:
            if not data:
                # In small parts, because zlib hands back a copy of whatever it has not used yet.
                data, rest = bytes(rest[:_PART]), rest[_PART:]
            chunk = member.decompress(data, min(_CHUNK, limit + 1 - len(out)))
            out += chunk
            if len(out) > limit:
                raise ValueError(_too_large(limit))
            if member.eof:
                data = member.unused_data
                if not data and not rest:
                    return out
                members += 1
                if members > _GZIP_MEMBERS:
                    raise ValueError(f"its gzip data has more than {_GZIP_MEMBERS} members")
                member = zlib.decompressobj(_GZIP_WINDOW)
            else:
                data = member.unconsumed_tail
                if not (data or rest or chunk):
                    raise ValueError("its gzip data ends too early")
    except zlib.error as error:
        raise ValueError(f"its gzip data is damaged: {error}") from error


def _unzstd(body: bytes, limit: int) -> bytearray:
    package = _zstandard()
    out = bytearray()
    try:
        with package.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(
            body, read_across_frames=True
        ) as reader:
            while chunk := reader.read(min(_CHUNK, limit + 1 - len(out))):
                out += chunk
                if len(out) > limit:
                    raise ValueError(_too_large(limit))
    except package.ZstdError as error:
        raise ValueError(f"its zstd data is damaged: {error}") from error
    return out


def _too_large(limit: int) -> str:
    return f"it decompresses to more than {limit} bytes"


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise ConfigurationError("zstd needs a package: pip install 's3-checkpoint[zstd]'") from error
    return zstandard
