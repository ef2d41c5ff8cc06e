"""All routes of the API."""

from sth_broker.api import hubs, instance_streams, instances, meta, sequences, tokens, topics
from sth_broker.api.route import Route

ROUTES: tuple[Route, ...] = (
    *meta.ROUTES,
    *sequences.ROUTES,
    *instances.ROUTES,
    *instance_streams.ROUTES,
    *topics.ROUTES,
    *hubs.ROUTES,
    *tokens.ROUTES,
)
