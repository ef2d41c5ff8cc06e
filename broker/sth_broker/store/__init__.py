"""The storage interface and its engines."""

from sth_broker.store.embedded import Store as Store
from sth_broker.store.embedded import open_store as open_store
