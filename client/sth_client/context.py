"""What every command works with: the broker, the output, and how a reference becomes an id."""

import logging
import sys
from argparse import Namespace
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sth_client import choose, last_used, settings
from sth_client.choose import Candidate
from sth_client.output import Output, open_output
from sth_protocol.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from sth_client.sync import Client

LAST = "-"
_WHOLE_ID = 36


class Context:
    """One run of `sth`. `interrupted`: what Ctrl-C leaves running, said when it is pressed."""

    def __init__(self, options: Namespace, environ: Mapping[str, str]) -> None:
        self.options = options
        self.environ = environ
        self.interrupted = ""

    @cached_property
    def config(self) -> settings.Config:
        return settings.read_config(settings.config_path(self.environ))

    @cached_property
    def settings(self) -> settings.Settings:
        return settings.resolve(vars(self.options), self.environ, self.config)

    @cached_property
    def output(self) -> Output:
        form = self.settings.output.value
        quiet = bool(vars(self.options).get("quiet"))
        return open_output(form=form, quiet=quiet, environ=self.environ)

    @cached_property
    def last(self) -> last_used.LastUsed:
        # Without a profile it is the address that tells brokers apart.
        name = self.settings.profile.value or self.settings.url.value
        return last_used.LastUsed(last_used.state_path(self.environ), name)

    @cached_property
    def client(self) -> "Client":
        # Imported here: commands that ask no broker do without an HTTP client.
        from sth_client.sync import Client

        found = self.settings
        token = settings.read_token(found)
        settings.check_space(token, found.space)
        if found.token_file and settings.is_exposed(Path(found.token_file.value)):
            path = found.token_file.value
            self.output.warning(f"others can read the token file {path}: chmod 600 {path}")
        logging.getLogger(__name__).debug("broker %s (%s)", found.url.value, found.url.origin)
        return Client(found.url.value, token=token, ca_file=found.ca_file.value)

    def sequence_id(self, reference: str) -> str:
        """The id of a Sequence, which becomes the last one."""
        return self._resolve(reference, "sequence")

    def instance_id(self, reference: str) -> str:
        """The id of an Instance, which becomes the last one."""
        return self._resolve(reference, "instance")

    def hub_id(self, reference: str) -> str:
        """The id of a Hub, which becomes the last one."""
        return self._resolve(reference, "hub")

    def topic(self, reference: str) -> str:
        """The name of a Topic, which becomes the last one. It need not exist yet."""
        name = self._last("topic") if reference == LAST else reference
        self.last.set("topic", name)
        return name

    def confirm(self, question: str) -> None:
        """Ask before what cannot be undone, unless --yes was given."""
        if self.options.yes:
            return
        if not sys.stdin.isatty():
            raise BadRequest(f"nobody is there to ask: {question}?", hint="give --yes")
        if not self.output.ask(f"{question}?"):
            raise BadRequest("nothing was done")

    def _resolve(self, reference: str, kind: str) -> str:
        if reference == LAST:
            return self._last(kind)
        # A whole id needs no list: the broker says whether it is there.
        found = reference
        if len(reference) != _WHOLE_ID or kind == "hub":
            found = choose.choose(
                reference,
                self._candidates(kind),
                what=kind.capitalize(),
                list_with=_LIST_WITH[kind],
            )
        self.last.set(kind, found)
        return found

    def _last(self, kind: str) -> str:
        found = self.last.get(kind)
        if not found:
            raise NotFound(
                f"there is no last {kind.capitalize()} yet", hint=f"`{_LIST_WITH[kind]}` shows all"
            )
        return found

    def _candidates(self, kind: str) -> list[Candidate]:
        if kind == "hub":
            return [Candidate(each.id, each.name) for each in self.client.hubs()]
        if kind == "sequence":
            sequences = self.client.sequences()
            # As the broker has it: a name means the newest, and lists are oldest first.
            newest = {each.name: each.id for each in sequences}
            return [Candidate(each.id, each.name, each.id in newest.values()) for each in sequences]
        return [
            Candidate(each.id, each.sequence_name, not each.has_ended)
            for each in self.client.instances()
        ]


_LIST_WITH = {
    "sequence": "sth seq ls",
    "instance": "sth inst ls",
    "topic": "sth topic ls",
    "hub": "sth hub ls",
}
