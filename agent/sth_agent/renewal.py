"""Renews the certificate over the link at half of its life, with a new key each time.

The old identity stays in use until the new one has connected; the connector sees to that.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable

from sth_agent import enrolment
from sth_agent.backoff import Backoff
from sth_agent.connector import Connector
from sth_agent.credentials import Identity, IdentityStore
from sth_agent.identity_child import request_certificate
from sth_protocol.errors import SthError

logger = logging.getLogger(__name__)

JITTER = 0.1
LONGEST_WAIT = 3600.0


def due(identity: Identity, uniform: Callable[[float, float], float]) -> float:
    """When to renew, in seconds since 1970: half of its life, more or less a tenth of that."""
    half = identity.half_life - identity.issued
    return identity.issued + half * (1 + uniform(-JITTER, JITTER))


async def renew_for_ever(connector: Connector, store: IdentityStore) -> None:
    """Until cancelled."""
    backoff = Backoff(random.uniform, first=1.0, longest=600.0)
    identity, moment = connector.identity, due(connector.identity, random.uniform)
    while True:
        if connector.identity is not identity:
            identity, moment = connector.identity, due(connector.identity, random.uniform)
        delay = moment - time.time()
        if delay > 0:
            # The clock may be set, or another identity take the place of this one meanwhile.
            await asyncio.sleep(min(delay, LONGEST_WAIT))
            continue
        try:
            await _renew(connector, store, identity)
            backoff.succeeded()
        except (SthError, OSError) as error:
            logger.info("the certificate could not be renewed: %s", error)
        # Also after a success: the candidate has to connect before it is the identity.
        await asyncio.sleep(backoff.next_delay())


async def _renew(connector: Connector, store: IdentityStore, identity: Identity) -> None:
    session = connector.session
    if session is None or connector.status.state != "connected":
        return
    key_file = store.request_key("renewal")
    key_file.unlink(missing_ok=True)
    csr = await asyncio.to_thread(request_certificate, key_file)
    answer = await session.ask("identity.renew", csr=csr)
    issued = await asyncio.to_thread(enrolment.renewed, identity, answer)
    candidate = store.add(key_file, issued)
    key_file.unlink(missing_ok=True)
    connector.adopt(candidate)
