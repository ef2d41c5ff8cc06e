"""Reads a gzip file that may be hostile: in bounded pieces, counted, and hashed on the way.

The hash is over the very bytes that were decompressed: a file that changes while it is read
cannot be one thing to the hash and another to the reader.
"""

import hashlib
import os
import zlib

from sth_sandbox.errors import bad_package

_COMPRESSED_PIECE = 64 * 1024
_PIECE = 256 * 1024
_GZIP = 31  # zlib's window bits for a gzip header


class Gunzip:
    """`limit`: so many bytes may go in, and come out. BAD_PACKAGE for all that is wrong."""

    def __init__(self, descriptor: int, *, limit: int) -> None:
        self._descriptor = descriptor
        self._offset = 0
        self._limit = limit
        self._produced = 0
        self._hash = hashlib.sha256()
        self._decompressor = zlib.decompressobj(_GZIP)
        self._compressed = b""
        self._ended = False
        self._ready = b""
        self._position = 0

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, at least one; b"" at the end."""
        while self._position == len(self._ready):
            if self._ended:
                return b""
            self._decompress()
        piece = self._ready[self._position : self._position + count]
        self._position += len(piece)
        return piece

    def read_exactly(self, count: int) -> bytes:
        """`count` bytes, fewer only at the end."""
        pieces = []
        while count and (piece := self.read(count)):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def finish(self, *, padding: int) -> str:
        """Read to the end, checking what the file says of itself; its SHA-256.

        `padding`: at most so many bytes may still come.
        """
        while piece := self.read(_PIECE):
            padding -= len(piece)
            if padding < 0:
                raise bad_package("the archive goes on and on behind its end")
        return self._hash.hexdigest()

    def _decompress(self) -> None:
        if not self._compressed:
            self._compressed = self._read_compressed()
        if self._decompressor.eof:
            self._next_part()
            return
        if not self._compressed:
            raise bad_package("the archive is cut off", hint="send it again, whole")
        try:
            self._ready = self._decompressor.decompress(self._compressed, _PIECE)
        except zlib.error as error:
            raise bad_package(f"not a valid gzip archive: {error}") from error
        self._position = 0
        self._compressed = self._decompressor.unconsumed_tail or self._decompressor.unused_data
        self._produced += len(self._ready)
        if self._produced > self._limit:
            raise bad_package(f"the archive holds more than {self._limit} bytes")

    def _next_part(self) -> None:
        """After a complete gzip part: another one, padding of zeros, or the end."""
        while self._compressed and not self._compressed.strip(b"\0"):
            self._compressed = self._read_compressed()
        if not self._compressed:
            self._ended = True
        else:
            self._decompressor = zlib.decompressobj(_GZIP)

    def _read_compressed(self) -> bytes:
        # By offset: the descriptor's own position is shared with whoever passed it on.
        data = os.pread(self._descriptor, _COMPRESSED_PIECE, self._offset)
        self._offset += len(data)
        if self._offset > self._limit:
            raise bad_package(f"the archive is longer than {self._limit} bytes")
        self._hash.update(data)
        return data
