"""Is a pattern that would try for ever refused, and are the usual ones taken?"""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engine.definitions.pattern_cost import tries
from gateway.engine.definitions.policy import MOST_TRIES, parse
from gateway.errors import PreconditionFailed

USUAL = [
    "",
    ".*",
    "^",
    "^.*$",
    r"^amq\.",
    r"^(?!amq\.).*",
    r"^(a|b)\..+$",
    r"^(orders|billing|stock)\.(in|out)$",
    r"\.dlq$",
    r".*\.dlq$",
    "^tenant-.*\\.events\\..*",
    r"^[a-z]+\.[a-z]+\.[a-z]+\.[0-9]+$",
    r"^([a-z]+\.)+dlq$",
    r"^(?:two-way|one)\d{1,4}$",
    "(?i)^Orders",
    "^[]a-z]+$",
    r"^mqtt-subscription-.*qos[01]$",
    r"^amq\.gen-.*",
    r"^(a|b|c)*x$",
    r"^(?P<tenant>[a-z]{2,20})\.",
    r"a{,3}b",
    r"{x}",
    "größe.*",
]

EVIL = [
    "(a+)+$",
    "(a*)*$",
    "([a-zA-Z]+)*$",
    "(a|aa)+$",
    "(a|a)*b",
    "(a|a?)+$",
    "(.*a){20}",
    "(.*)*x",
    "(.*a){1,100}b",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "((a+)b?)+$",
    "(?:(?:a+))+$",
    "(a{1,3}){1,50}$",
    ".*.*.*.*.*=x",
    "a*a*a*a*a*a*b",
    "a?" * 40 + "a" * 40,
    "(a|a)" * 40 + "b",
    r"(\w+\s?)*x$",
    "(?=(a+)+$)b",
    "(?i:(a+)+)$",
    "(x+x+)+y",
    "(?x) (a+)+ $",
    r"^(.+)+\1$",
    "((a)|(b)|ab)*c",
    "(|a+)+b",
]


@pytest.mark.parametrize("pattern", USUAL)
def test_a_usual_pattern_is_taken(pattern):
    assert parse("p", {"pattern": pattern, "definition": {"max-length": 1}}).pattern == pattern


@pytest.mark.parametrize("pattern", EVIL)
def test_a_pattern_that_may_try_for_ever_is_refused(pattern):
    re.compile(pattern)
    with pytest.raises(PreconditionFailed, match="could be searched for in too many ways"):
        parse("p", {"pattern": pattern, "definition": {"max-length": 1}})


ATOMS = st.sampled_from(["a", "b", ".", r"\.", "[ab]", "[^a]", r"\w", "^", "$", "x"])


def grown(inner):
    quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?"])
    return st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map("|".join).map("({})".format),
        st.tuples(inner.map("(?:{})".format), quantifiers).map("".join),
    )


NAMES = ["a" * 100, "ab" * 50, "a." * 50, "b" * 99 + "!", "a" * 99 + "!", "ab" * 49 + "c!", ".a" * 50 + "!", "x" * 99 + "\n"]


@given(st.recursive(ATOMS, grown, max_leaves=12))
@settings(max_examples=300, deadline=None)
def test_what_is_taken_is_searched_for_in_a_short_time(pattern):
    try:
        compiled = re.compile(pattern)
    except re.error:
        return
    if tries(pattern) > MOST_TRIES:
        return
    begun = time.process_time()
    for name in NAMES:
        compiled.search(name)
    assert time.process_time() - begun < 2
