"""`sth token`: what lets machines join and programs use the API."""

import argparse
import time

from sth_client import choose, values
from sth_client.choose import Candidate
from sth_client.context import Context
from sth_client.output import Column
from sth_client.parsing import Command
from sth_client.results import TokenInfo
from sth_protocol.errors import BadRequest

SCOPES = ("read", "run", "admin")


def _create(context: Context) -> int:
    return _create_join(context) if context.options.kind == "join" else _create_api(context)


def _create_join(context: Context) -> int:
    options = context.options
    if options.scope:
        raise BadRequest("a join token has no scope: it joins machines and nothing else")
    made = context.client.make_join_token(ttl=_ttl(context), uses=options.uses, name=options.name)
    if made.warning:
        context.output.warning(made.warning)
    if context.output.form in ("json", "jsonl"):
        context.output.item(made.raw, name=made.id)
        return 0
    context.output.line(made.command or f"sth-agent join {made.token}")
    uses = {0: "any number of machines", None: "one machine", 1: "one machine"}.get(
        made.uses, f"{made.uses} machines"
    )
    context.output.note(
        "Run it on the machine that is to join; without sudo it joins for one user alone."
    )
    context.output.note(f"Token {made.id} is for {uses}, until {made.expires or 'revoked'}.")
    return 0


def _create_api(context: Context) -> int:
    options = context.options
    if options.uses is not None:
        raise BadRequest("--uses is for join tokens")
    made = context.client.make_api_token(
        scope=options.scope or "run", ttl=_ttl(context), name=options.name
    )
    if context.output.form in ("json", "jsonl"):
        context.output.item(made.raw, name=made.id)
        return 0
    context.output.line(made.token)
    context.output.note(f"Token {made.id} is valid until {made.expires}. It is not shown again.")
    return 0


def _ttl(context: Context) -> float | None:
    text: str | None = context.options.ttl
    return values.parse_duration(text) if text else None


def _list(context: Context) -> int:
    join, api = context.client.join_tokens(), context.client.api_tokens()
    tokens = [*join, *api]
    kinds = {each.id: "join" for each in join}
    now = time.time()
    columns: list[Column[TokenInfo]] = [
        Column("ID", lambda each: each.id),
        Column("KIND", lambda each: kinds.get(each.id, "api")),
        Column("NAME", lambda each: each.name),
        Column("EXPIRES", lambda each: each.expires or "never"),
        Column("STATE", lambda each: _state(each, now)),
    ]
    context.output.items(tokens, columns, raw=lambda each: each.raw, name=lambda each: each.id)
    return 0


def _state(token: TokenInfo, now: float) -> str:
    if token.revoked:
        return "revoked"
    if token.is_used_up:
        return "used"
    return "expired" if values.is_past(token.expires, now) else "valid"


def _revoke(context: Context) -> int:
    client = context.client
    join = [Candidate(each.id, each.name) for each in client.join_tokens() if not each.revoked]
    api = [Candidate(each.id, each.name) for each in client.api_tokens() if not each.revoked]
    token = choose.choose(
        context.options.token, [*join, *api], what="token", list_with="sth token ls"
    )
    context.confirm(f"revoke token {token}")
    if any(each.id == token for each in join):
        client.revoke_join_token(token)
    else:
        client.revoke_api_token(token)
    context.output.note(f"revoked token {token}")
    return 0


def _configure_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("join", "api"), help="for a machine, or for a program")
    parser.add_argument("--ttl", metavar="TIME", help="how long it is valid: 1h, 7d")
    parser.add_argument("--uses", metavar="N", type=int, help="join: how many machines; 0: any")
    parser.add_argument("--name", default="", help="join: of the Hub; api: what it is for")
    parser.add_argument("--scope", choices=SCOPES, help="api: what it allows (run)")


def _configure_revoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("token", metavar="TOKEN", help="its id, name or beginning")
    parser.add_argument("--yes", action="store_true", help="do not ask")


COMMANDS = {
    "create": Command("make a token; its text is the data", _create, _configure_create),
    "ls": Command("list tokens, without their secrets", _list),
    "revoke": Command("take a token back", _revoke, _configure_revoke),
}
