"""Imports for their effect alone.

The standard library imports these when they are first needed, which fails in a changed root that
does not hold them, or costs each forked Instance the time and the memory once more.
"""

import asyncio.selector_events
import asyncio.unix_events
import encodings.ascii
import encodings.idna
import encodings.latin_1
import encodings.punycode
import encodings.utf_8
import importlib.util
import inspect
import json.decoder
import json.encoder
import linecache
import logging
import random
import signal
import stringprep
import tokenize
import traceback
import typing
import unicodedata
import warnings

import sth
import sth.results

__all__ = [
    "asyncio",
    "encodings",
    "importlib",
    "inspect",
    "json",
    "linecache",
    "logging",
    "random",
    "signal",
    "sth",
    "stringprep",
    "tokenize",
    "traceback",
    "typing",
    "unicodedata",
    "warnings",
]
