"""Ids of requests: which are taken over, and which are made."""

import re

import pytest

from nearfar.serve.tracing import RequestIds

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def taken(*headers):
    return RequestIds.of([(name.encode(), value.encode()) for name, value in headers])


@pytest.mark.parametrize(
    ("parent", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-ff", "03"),  # unknown flags are not passed on
        (f"cc-{TRACE}-{SPAN}-01", "01"),  # a later version
        (f"cc-{TRACE}-{SPAN}-01-what-it-will-be", "01"),
    ],
)
def test_a_trace_is_continued_with_a_span_of_its_own(parent, flags):
    ids = taken(("traceparent", parent))
    assert (ids.trace_id, ids.trace_flags) == (TRACE, flags)
    assert ids.span_id != SPAN
    assert ids.headers()["traceparent"] == f"00-{TRACE}-{ids.span_id}-{flags}"


@pytest.mark.parametrize(
    "parent",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n00-{TRACE}-{SPAN}-01",
    ],
)
def test_an_invalid_trace_is_replaced(parent):
    ids = taken(("traceparent", parent))
    assert ids.trace_id != TRACE
    assert re.fullmatch("[0-9a-f]{32}", ids.trace_id)
    assert re.fullmatch("[0-9a-f]{16}", ids.span_id)
    assert ids.trace_flags == "00"


def test_a_request_id_is_taken_over_where_it_can_stand_in_a_log():
    assert taken(("x-request-id", "order/7:a=b")).request_id == "order/7:a=b"
    assert taken(("x-request-id", "a" * 128)).request_id == "a" * 128
    for bad in ("", "a" * 129, "two words", 'quo"te', "é", "a\nb"):
        assert re.fullmatch("[0-9a-f]{32}", taken(("x-request-id", bad)).request_id), bad


def test_headers_that_are_there_twice_count_as_missing():
    parent = f"00-{TRACE}-{SPAN}-01"
    ids = taken(("traceparent", parent), ("traceparent", parent), *[("x-request-id", "a")] * 2)
    assert ids.trace_id != TRACE
    assert ids.request_id != "a"


def test_no_two_requests_have_the_same_ids():
    made = [taken() for _ in range(100)]
    for name in ("request_id", "trace_id", "span_id"):
        assert len({getattr(ids, name) for ids in made}) == 100
