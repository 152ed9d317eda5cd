"""Is docs/conformance.md complete, and as the code and the tests are?"""

from collections import Counter

from tests.mqtt.conformance.page import PAGE, Places, lacking, page
from tests.mqtt.conformance.statements import statements

PLACES = Places.found()
CHAPTERS = {
    "MQTT": "1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3 3.3.4:1 3.3.5:2 3.6.1:1 "
    "3.8.1:1 3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1 3.14.1:1 3.14.4:3 4.1.0:2 4.3.1:1 4.3.2:2 4.3.3:2 4.4.0:1 "
    "4.5.0:2 4.6.0:6 4.7.1:3 4.7.2:1 4.7.3:4 4.8.0:2 6.0.0:4 7.0.0:2 7.1.1:1 7.1.2:1",
    "MQTT5": "1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:5 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 3.2.2:22 3.3.1:13 3.3.2:20 "
    "3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.11.2:2 "
    "3.11.3:2 3.12.4:1 3.14.0:1 3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2 4.2.0:1 4.3.1:1 4.3.2:5 4.3.3:13 4.4.0:2 "
    "4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 4.12.0:7 4.12.1:2 4.13.1:1 4.13.2:1 6.0.0:4",
}


def test_the_list_has_as_many_statements_of_every_section_as_the_standards():
    for series, sections in CHAPTERS.items():
        listed = Counter(statement.chapter for statement in statements().values() if statement.series == series)
        assert " ".join(f"{chapter}:{count}" for chapter, count in listed.items()) == sections


def test_the_page_is_as_the_code_and_the_tests_are():
    assert PAGE.read_text(encoding="utf-8") == page(PLACES), "make conformance"


def test_every_statement_that_binds_a_server_has_code_and_a_test():
    assert lacking(PLACES) == {"code": [], "test": []}


def test_every_tag_in_code_and_tests_is_a_statement_of_the_standards():
    known = set(statements())
    assert sorted(set(PLACES.code) - known) == []
    assert sorted(set(PLACES.tests) - known) == []


def test_every_place_that_the_list_names_is_there():
    for statement in statements().values():
        if statement.code:
            name, symbol = statement.code.split(":")
            assert PLACES.has(name, symbol), statement.tag
