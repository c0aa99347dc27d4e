"""Compressed files, told by the ends of their names: ``.gz`` and ``.zst``, and no other rule."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from guardrail.errors import MissingExtraError, UsageError

__all__ = ["Compression", "compressed", "compression_of", "decompressed", "name_inside"]

Compression = Literal["gzip", "zstd"]
SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
PORTION = 1 << 10
"""Compressed bytes taken at a time: in either format they make up no more than 32 MB."""


def compression_of(path: Path) -> Compression | None:
    """How a file of this name is compressed; None if it is not, as standard input and output never are."""
    return SUFFIXES.get(path.suffix.lower())


def name_inside(path: Path) -> Path:
    """The name without the suffix of its compression."""
    return path.with_suffix("") if compression_of(path) else path


def decompressed(file: BinaryIO, path: Path) -> BinaryIO:
    """What is in a file that stands at its beginning: its content, decompressed if its name says so.

    Several members or frames are read as one. While it is read, UsageError if it is damaged or cut.
    """
    compression = compression_of(path)
    if compression is None:
        return file
    return io.BufferedReader(_Decompressed(file, path, _decompressor(compression)), io.DEFAULT_BUFFER_SIZE)


def compressed(file: BinaryIO, path: Path) -> BinaryIO:
    """A file to write into, which compresses into ``file`` if the name says so; complete once closed.

    Closing it leaves ``file`` open.
    """
    compression = compression_of(path)
    if compression is None:
        return cast(BinaryIO, _Unclosed(file))
    if compression == "gzip":
        return cast(BinaryIO, gzip.GzipFile("", "wb", 6, file, mtime=0))
    return _zstd_writer(file)


class _Unclosed(io.BufferedIOBase):
    """Passes on what is written, and leaves the file open when it is closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self._file.write(content)

    def flush(self) -> None:
        if not self.closed:
            self._file.flush()


class _Decompressed(io.RawIOBase):
    """Reads members or frames one after the other; seeks by reading."""

    def __init__(self, file: BinaryIO, path: Path, new: Callable[[], Any]) -> None:
        self._file, self._path, self._new = file, path, new
        self._rewind()

    def _rewind(self) -> None:
        self._decoder: Any = None  # between two members
        self._waiting, self._ready, self._position = b"", memoryview(b""), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only positions from the beginning can be sought")
        if offset < self._position:
            self._file.seek(0)
            self._rewind()
        buffer = bytearray(io.DEFAULT_BUFFER_SIZE)
        while self._position < offset:
            wanted = min(len(buffer), offset - self._position)
            if not self.readinto(memoryview(buffer)[:wanted]):
                break
        return self._position

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._fill():
            pass
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        self._position += count
        return count

    def _fill(self) -> bool:
        """Decompresses a portion; False at the end."""
        portion = self._waiting or self._file.read(PORTION)
        self._waiting = b""
        if not portion:
            if self._decoder is not None:
                raise UsageError(f"{self._path} is truncated: its compressed content ends early; copy it")
            return False
        if self._decoder is None:
            portion = portion.lstrip(b"\0")  # padding, as tapes have it
            if not portion:
                return True
            self._decoder = self._new()
        try:
            self._ready = memoryview(self._decoder.decompress(portion))
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            suffix = self._path.suffix
            raise UsageError(
                f"{self._path} is damaged, or not compressed as its name says ({suffix})"
            ) from error
        if self._decoder.eof:
            self._waiting, self._decoder = self._decoder.unused_data, None
        return True


def _decompressor(compression: Compression) -> Callable[[], Any]:
    if compression == "gzip":
        return lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor

        return ZstdDecompressor
    zstandard = _zstandard()
    return lambda: zstandard.ZstdDecompressor().decompressobj()


def _zstd_writer(file: BinaryIO) -> BinaryIO:
    if sys.version_info >= (3, 14):
        from compression.zstd import CompressionParameter, ZstdFile

        return cast(BinaryIO, ZstdFile(file, "wb", options={CompressionParameter.checksum_flag: 1}))
    writer = _zstandard().ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False)
    return cast(BinaryIO, writer)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtraError(feature="a file whose name ends in .zst", extra="zstd") from error
    return zstandard
