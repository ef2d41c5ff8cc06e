"""`sth version`: ours and the broker's."""

from sth_client.context import Context
from sth_client.parsing import Command
from sth_client.version import version


def _version(context: Context) -> int:
    broker = context.client.version()
    shown = {
        "sth": version(),
        "broker": broker.version,
        "api": broker.api_version,
        "url": context.settings.url.value,
    }
    context.output.item(shown, name=shown["sth"])
    return 0


COMMANDS = {"": Command("the versions of sth and of its broker", _version)}
