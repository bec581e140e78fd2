"""Every request and answer that the fourth system's README has of a scheduler process."""

import asyncio
import re

import pytest

from conftest import eventually
from process_calls import AT, PATHS, called, ended, operations, registered

HEADERS = {
    "x-rapidapi-host": "filmot-tube-metadata-archive.p.rapidapi.com",
    "x-rapidapi-key": "THEi6IKsE3mshLA9rbwj6DMQLAI1p1BHU0qjsn1xqbzwX5ArMB",
}
SUBTITLES = {
    "query": "hello world",
    "channel": "Technology Explained",
    "channelCount": 5,
    "queryVideoID": "dQw4w9WgXcQ",
    "lang": "en",
    "page": 2,
    "category": "Science & Technology",
    "excludeCategory": "Music,Gaming",
    "license": 2,
    "maxViews": 50000,
    "startDate": "2023-01-01",
    "endDate": "2023-12-31",
}
CHANNELS = (
    b'[\n  {\n "r": 2312517590,\n "thumbnailurl": "http:\\/\\/yt3.googleusercontent.com\\/XiCS",\n'
    b' "label": "SCIENCE CHANNEL\\uff08JST\\uff09", "islist": false }\n]\n'
)
WAITING = {
    "status": "WAITING",
    "message": "The request has been created. It is waiting to be processed.",
    "step": ["Received in the API"],
}
IN_PROGRESS = {
    "status": "IN_PROGRESS",
    "message": "The request is being processed.",
    "step": ["Received in the API", "Received in the worker"],
}
SUCCESS = {
    "status": "SUCCESS",
    "message": "The request has been executed and the process has been completed successfully.",
    "step": ["Received in the API", "Received in the worker", "Executed command successfully"],
}
ERROR = {
    "status": "ERROR",
    "message": "There was one or more errors trying to execute scheduler process.",
    "step": ["Received in the API", "Received in the worker"],
}


async def test_the_create_example_is_answered_as_written(alice):
    body = {
        "service": "Filmot",
        "endpoint": "/getsearchsubtitles",
        "method": "GET",
        "headers": HEADERS,
        "query_params": SUBTITLES,
    }
    answer = await alice.post(AT, json=body)
    assert answer.status_code == 200
    made = answer.json()
    assert re.fullmatch("[A-Za-z0-9]{16}", made.pop("trace_id"))
    assert made == {"status": "WAITING", "msg": "Your request is waiting to be processed."}


async def test_basic_credentials_do(app):
    async with app.client() as client:
        body = {"service": "Filmot", "endpoint": "/a", "method": "GET"}
        auth = ("alice", "alice-token-0123456789")
        answer = await client.post(AT, json=body, auth=auth)
        trace_id = answer.json()["trace_id"]
        assert (await client.get(f"{AT}/{trace_id}/status", auth=auth)).status_code == 200


async def test_a_process_goes_from_waiting_to_success(alice, receiver):
    await registered(alice, receiver.url, PATHS, headers=HEADERS)
    answers = asyncio.Event()
    receiver.then(200, CHANNELS, {"Content-Type": "application/json"}, after=answers)

    waiting = await called(alice, "GET /getsearchchannels", scheduled_at="2099-01-01T00:00:00Z")
    assert (await alice.get(f"{AT}/{waiting}/status")).json() == WAITING
    assert (await alice.get(f"{AT}/{waiting}/response")).json() == WAITING

    query = {"term": "Science Channel"}
    trace_id = await called(alice, "GET /getsearchchannels", query_params=query, headers=HEADERS)
    await eventually(lambda: receiver.last)
    assert (await alice.get(f"{AT}/{trace_id}/status")).json() == IN_PROGRESS
    assert (await alice.get(f"{AT}/{trace_id}/response")).json() == IN_PROGRESS

    answers.set()
    assert await ended(alice, trace_id) == SUCCESS
    assert receiver.last.path == "/getsearchchannels?term=Science%20Channel"
    assert receiver.last.header("x-rapidapi-key") == HEADERS["x-rapidapi-key"]

    shown = (await alice.get(f"{AT}/{trace_id}")).json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown.pop("timestamp"))
    assert shown == {
        "trace_id": trace_id,
        "status": SUCCESS,
        "service": "filmot",
        "method": "GET",
        "endpoint": "/getsearchchannels",
        "headers": HEADERS,
        "query_params": query,
        "url_params": None,
        "req_body": None,
    }

    answer = await alice.get(f"{AT}/{trace_id}/response")
    assert (answer.status_code, answer.content) == (200, CHANNELS)
    assert answer.headers["Content-Type"] == "application/json"


async def test_a_service_that_is_not_there_is_an_error(alice):
    trace_id = await called(alice, "GET /getsearchchannels", query_params={"term": "x"})
    why = (
        "The command could not be executed because the service requested (filmot) is not available."
    )
    assert await ended(alice, trace_id) == {**ERROR, "error": why}
    answer = await alice.get(f"{AT}/{trace_id}/response")
    assert (answer.status_code, answer.json()) == (200, {"error": True, "message": why})


async def test_a_parameter_that_is_missing_is_an_error_before_anything_is_sent(alice, receiver):
    await registered(alice, receiver.url, PATHS)
    trace_id = await called(alice, "GET /getsearchchannels")
    why = "Error executing API call: API call failed: term is required and must be specified"
    assert await ended(alice, trace_id) == {**ERROR, "error": why}
    answer = await alice.get(f"{AT}/{trace_id}/response")
    assert (answer.status_code, answer.json()) == (200, {"error": True, "message": why})
    assert receiver.requests == []


async def test_headers_merge_as_in_its_example(alice, receiver):
    headers = {"header1": "val1", "header2": "val2"}
    await registered(alice, receiver.url, operations("GET /a"), headers=headers)
    trace_id = await called(alice, headers={"header2": "val50", "header3": "val3"})
    assert await ended(alice, trace_id) == SUCCESS
    sent = {name: receiver.last.header(name) for name in ("header1", "header2", "header3")}
    assert sent == {"header1": "val1", "header2": "val50", "header3": "val3"}


async def test_parameters_that_the_document_does_not_name_are_sent(alice, receiver):
    await registered(alice, receiver.url, PATHS)
    query = {"term": "x", **SUBTITLES}
    assert await ended(alice, await called(alice, "GET /getsearchchannels", query_params=query))
    assert "channelCount=5" in receiver.last.path
    assert "category=Science%20%26%20Technology" in receiver.last.path


@pytest.mark.parametrize("endpoint", ["GET /nowhere", "POST /getsearchchannels"])
async def test_an_endpoint_that_is_not_there_is_an_error(alice, receiver, endpoint):
    await registered(alice, receiver.url, PATHS)
    trace_id = await called(alice, endpoint)
    status = await ended(alice, trace_id)
    assert status["status"] == "ERROR"
    assert endpoint in status["error"]
    assert receiver.requests == []
