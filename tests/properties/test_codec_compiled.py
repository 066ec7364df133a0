"""Compiled writers and readers answer as the plain way does: for every kind of document, and for what is no such document."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.loops.picture import KINDS
from model import codec
from model.codec_compiled import Unusual, maker, whole, writer
from model.documents import Assigned, AssignedService, StatusDoc

CLASSES = sorted({*KINDS.values()}, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_document_is_written_and_read_as_field_by_field(cls: type, data: st.DataObject) -> None:
    record = data.draw(st.from_type(cls))
    text = writer(cls)(record)
    assert text == whole(codec.to_plain(record))
    made = maker(cls)(json.loads(text))
    assert made == codec.from_plain(cls, json.loads(text))
    assert dataclasses.fields(made) == dataclasses.fields(record)
    assert hash(made) == hash(codec.from_plain(cls, json.loads(text)))


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(StatusDoc)]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers() | st.dictionaries(st.text(), st.text())),
    )
)
def test_what_is_no_document_is_refused_with_the_same_words(plain: dict[str, Any]) -> None:
    def way(read: Any) -> object:
        try:
            return read()
        except ValueError as error:
            return str(error)

    assert way(lambda: codec.decode(StatusDoc, json.dumps(plain))) == way(lambda: codec.from_plain(StatusDoc, plain))


def test_a_record_that_breaks_its_annotations_is_left_to_the_plain_way() -> None:
    odd: Any = AssignedService("id1", "web", (1, True, 1, 2))
    with pytest.raises(Unusual):
        writer(AssignedService)(odd)
    assert codec.encode(odd) == b'{"service_id":"id1","name":"web","numbers":[1,true,1,2]}'
    with pytest.raises(ValueError, match="numbers"):
        codec.decode(AssignedService, codec.encode(odd))


OLDER = [
    b"""{"service_id": "id1", "name": "web", "replicas": [
        {"slot": 4, "version": 2, "created_ms": 9}, {"slot": 2, "version": 1, "created_ms": 5},
        {"slot": 1, "version": 1, "created_ms": 5}]}""",
    b"""{"service_id": "id1", "name": "web", "runs": [[1, 5, 1, 2], [2, 9, 4]]}""",
]


@pytest.mark.parametrize("older", OLDER)
def test_an_assignment_as_older_daemons_wrote_it_is_read(older: bytes) -> None:
    found = codec.decode(AssignedService, older)
    assert found == AssignedService("id1", "web", (2, 1, 5, 1, 2, 1, 2, 9, 4))
    assert found.runs == ((1, 5, 1, 2), (2, 9, 4))
    assert found.replicas == (Assigned(1, 1, 5), Assigned(2, 1, 5), Assigned(4, 2, 9))
    assert found.count == 3
    assert codec.decode(AssignedService, codec.encode(found)) == found
    with pytest.raises(ValueError, match="numbers: missing"):
        codec.decode(AssignedService, b'{"service_id": "id1", "name": "web", "replicas": [{"slot": 4}]}')
    empty = codec.decode(AssignedService, b'{"service_id": "id1", "name": "web", "runs": []}')
    assert (empty.runs, empty.replicas, empty.count) == ((), (), 0)
