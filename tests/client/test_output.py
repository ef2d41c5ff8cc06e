"""What a command says, and where."""

import io
import json

from sth_client.fields import Raw
from sth_client.output import Column, Output, printable
from sth_protocol.errors import NotFound


class Spoken:
    """An Output and what came of it."""

    def __init__(self, form: str = "table", *, quiet: bool = False, colour: bool = False) -> None:
        self._stdout, self._stderr = io.BytesIO(), io.StringIO()
        self.output = Output(self._stdout, self._stderr, form=form, quiet=quiet, colour=colour)

    @property
    def bytes(self) -> "bytes":
        return self._stdout.getvalue()

    @property
    def stdout(self) -> str:
        return self.bytes.decode()

    @property
    def stderr(self) -> str:
        return self._stderr.getvalue()


ITEMS: list[Raw] = [{"id": "1", "name": "long name"}, {"id": "22", "name": ""}]


def show(spoken: Spoken) -> str:
    columns: list[Column[Raw]] = [
        Column("ID", lambda each: str(each["id"])),
        Column("NAME", lambda each: str(each["name"])),
        Column("X", lambda each: "x"),
    ]
    spoken.output.items(ITEMS, columns, raw=lambda each: each, name=lambda each: str(each["id"]))
    return spoken.stdout


def test_table_is_aligned_and_plain() -> None:
    assert show(Spoken()) == "ID  NAME       X\n1   long name  x\n22  -          x\n"


def test_json_is_the_apis_own() -> None:
    assert json.loads(show(Spoken("json"))) == ITEMS
    assert [json.loads(line) for line in show(Spoken("jsonl")).splitlines()] == ITEMS


def test_name_is_ids_alone() -> None:
    assert show(Spoken("name")) == "1\n22\n"


def test_item_shows_inner_fields_with_their_path() -> None:
    spoken = Spoken()
    spoken.output.item({"id": "1", "inner": {"deep": [1]}, "none": {}}, name="1")
    assert spoken.stdout == "id:          1\ninner.deep:  [1]\nnone:        {}\n"


def test_error_says_what_and_what_to_do_on_stderr() -> None:
    spoken = Spoken(quiet=True)
    spoken.output.error(NotFound("it is gone", hint="look again"))
    assert spoken.stderr == "error: it is gone\nhint: look again\n"
    assert spoken.stdout == ""


def test_colour_is_on_the_words_only() -> None:
    spoken = Spoken(colour=True)
    spoken.output.error(NotFound("it is gone"))
    assert spoken.stderr == "\x1b[1;31merror:\x1b[0m it is gone\n"


def test_quiet_leaves_out_notes_but_not_warnings() -> None:
    spoken = Spoken(quiet=True)
    spoken.output.note("packed")
    spoken.output.warning("careful")
    assert spoken.stderr == "warning: careful\n"


def test_names_cannot_draw_on_the_terminal() -> None:
    assert printable("a\x1b[2Jb\n\u202e") == "a\\x1b[2Jb\\n\\u202e"
    spoken = Spoken()
    spoken.output.item({"name": "\x1b[2J"}, name="")
    assert "\x1b" not in spoken.stdout


def test_data_passes_unchanged() -> None:
    spoken = Spoken()
    spoken.output.data(b"\x1b\x00\xff")
    assert spoken.bytes == b"\x1b\x00\xff"
