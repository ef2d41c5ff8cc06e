"""An interpreter of the few BPF instructions that the filter uses, as the kernel runs them."""

import struct
from collections.abc import Callable, Sequence


def verdict(program: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """What the kernel would answer to this call. ValueError if it would not load the program."""
    instructions = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *padded)
    accumulator = 0
    position = 0
    while position < len(instructions):
        code, yes, no, operand = instructions[position]
        position += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x06:
            return int(operand)
        elif code in _TESTS:
            position += yes if _TESTS[code](accumulator, operand) else no
        else:
            raise ValueError(f"unknown instruction {code:#x}")
    raise ValueError("the program ends without a verdict")


_TESTS: dict[int, Callable[[int, int], bool]] = {
    0x15: lambda value, operand: value == operand,
    0x35: lambda value, operand: value >= operand,
    0x45: lambda value, operand: bool(value & operand),
}
