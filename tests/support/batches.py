"""Small batches for tests."""

from sth_protocol import batch

PRODUCER = bytes(range(16))


def lines(*texts: str, producer: bytes = PRODUCER, epoch: int = 1, base_sequence: int = 0) -> bytes:
    """A batch of lines."""
    payload = "".join(f"{text}\n" for text in texts).encode()
    return batch.encode(
        payload, producer=producer, epoch=epoch, base_sequence=base_sequence, count=len(texts)
    )


def chunk(data: bytes, *, producer: bytes = PRODUCER, base_sequence: int = 0) -> bytes:
    """A batch of one chunk of bytes."""
    return batch.encode(
        data,
        producer=producer,
        epoch=1,
        base_sequence=base_sequence,
        count=1,
        flags=batch.FLAG_CHUNK,
    )
