"""From an operation and its arguments to a request."""

import base64
import json
import re
import subprocess
import sys
from email import message_from_bytes
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler import target
from scheduler.documents.client import Encoding, Media, Operation, Parameter, Scheme
from scheduler.documents.operation import Arguments, WrongCall, build

SERVER = "https://api.example.com/v1"
COLOR = {"R": 100, "G": 200, "B": 150}
COLORS = ["blue", "black", "brown"]


def path(style="simple", explode=False, name="color", **more):
    return Parameter(name=name, in_="path", required=True, style=style, explode=explode, **more)


def query(style="form", explode=True, name="color", **more):
    return Parameter(name=name, in_="query", style=style, explode=explode, **more)


def operation(*parameters, template="/pets", method="GET", servers=(SERVER,), **more):
    return Operation(
        method=method, path=template, parameters=list(parameters), servers=list(servers), **more
    )


def call(asked, *, headers=None, own=None, url=None, base=None, body=None, **given):
    """Build a request of arguments as they come: `query` and `path` as JSON texts or objects."""
    texts = {
        f"{'query' if key == 'query' else 'url'}_params": value
        if isinstance(value, str)
        else json.dumps(value)
        for key, value in given.items()
    }
    body = body if body is None or isinstance(body, str) else json.dumps(body)
    arguments = Arguments.read(headers=own or {}, req_body=body, url=url, **texts)
    return build(asked, arguments, headers=headers or {}, url=base)


def asked_for(request):
    """The query of a request, as it is sent."""
    return urlsplit(request.url).query


# The table of OpenAPI 3.1.1, 4.8.12.4 ------------------------------------------------------------

PATHS = [
    ("matrix", False, "", ";color"),
    ("matrix", False, "blue", ";color=blue"),
    ("matrix", False, COLORS, ";color=blue,black,brown"),
    ("matrix", False, COLOR, ";color=R,100,G,200,B,150"),
    ("matrix", True, "", ";color"),
    ("matrix", True, "blue", ";color=blue"),
    ("matrix", True, COLORS, ";color=blue;color=black;color=brown"),
    ("matrix", True, COLOR, ";R=100;G=200;B=150"),
    ("label", False, "blue", ".blue"),
    ("label", False, COLORS, ".blue,black,brown"),
    ("label", False, COLOR, ".R,100,G,200,B,150"),
    ("label", True, "blue", ".blue"),
    ("label", True, COLORS, ".blue.black.brown"),
    ("label", True, COLOR, ".R=100.G=200.B=150"),
    ("simple", False, "blue", "blue"),
    ("simple", False, COLORS, "blue,black,brown"),
    ("simple", False, COLOR, "R,100,G,200,B,150"),
    ("simple", True, "blue", "blue"),
    ("simple", True, COLORS, "blue,black,brown"),
    ("simple", True, COLOR, "R=100,G=200,B=150"),
]
QUERIES = [
    ("form", False, "", "color="),
    ("form", False, "blue", "color=blue"),
    ("form", False, COLORS, "color=blue,black,brown"),
    ("form", False, COLOR, "color=R,100,G,200,B,150"),
    ("form", True, "", "color="),
    ("form", True, "blue", "color=blue"),
    ("form", True, COLORS, "color=blue&color=black&color=brown"),
    ("form", True, COLOR, "R=100&G=200&B=150"),
    ("spaceDelimited", False, COLORS, "color=blue%20black%20brown"),
    ("spaceDelimited", False, COLOR, "color=R%20100%20G%20200%20B%20150"),
    ("pipeDelimited", False, COLORS, "color=blue%7Cblack%7Cbrown"),
    ("pipeDelimited", False, COLOR, "color=R%7C100%7CG%7C200%7CB%7C150"),
    ("deepObject", True, COLOR, "color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150"),
    ("deepObject", True, COLORS, "color%5B%5D=blue&color%5B%5D=black&color%5B%5D=brown"),
]  # fmt: skip


@pytest.mark.parametrize(("style", "explode", "value", "sent"), PATHS)
def test_a_parameter_in_the_path_has_its_style(style, explode, value, sent):
    asked = operation(path(style, explode), template="/by/{color}/now")
    assert call(asked, path={"color": value}).url == f"{SERVER}/by/{sent}/now"


@pytest.mark.parametrize(("style", "explode", "value", "sent"), QUERIES)
def test_a_parameter_in_the_query_has_its_style(style, explode, value, sent):
    assert asked_for(call(operation(query(style, explode)), query={"color": value})) == sent


@pytest.mark.parametrize(
    ("explode", "value", "sent"),
    [
        (False, "blue", "blue"),
        (False, COLORS, "blue,black,brown"),
        (False, COLOR, "R,100,G,200,B,150"),
        (True, COLORS, "blue,black,brown"),
        (True, COLOR, "R=100,G=200,B=150"),
    ],
)
def test_a_parameter_in_a_header_can_be_given_among_the_others(explode, value, sent):
    color = Parameter(name="X-Color", in_="header", style="simple", explode=explode)
    request = call(operation(color), query={"X-Color": value})
    assert request.headers == [("X-Color", sent)]
    assert asked_for(request) == ""


@pytest.mark.parametrize(
    ("explode", "value", "sent"),
    [
        (False, "blue", "color=blue"),
        (False, COLORS, "color=blue,black,brown"),
        (False, COLOR, "color=R,100,G,200,B,150"),
        (True, COLORS, "color=blue; color=black; color=brown"),
        (True, COLOR, "R=100; G=200; B=150"),
    ],
)
def test_a_parameter_in_a_cookie_joins_the_others(explode, value, sent):
    color = Parameter(name="color", in_="cookie", explode=explode)
    request = call(operation(color), query={"color": value}, own={"Cookie": "a=1"})
    assert request.headers == [("Cookie", f"a=1; {sent}")]


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("true", "true"),
        ("5", "5"),
        ("1.10", "1.10"),
        ("1e400", "1e400"),
        ("12345678901234567890", "12345678901234567890"),
        ("-0.0", "-0.0"),
        ('"a b&c=d/ä+%"', "a%20b%26c%3Dd%2F%C3%A4%2B%25"),
        ('[1.10, "x", true]', "1.10&color=x&color=true"),
        ('[{"a": 1.10}]', "%7B%22a%22%3A1.10%7D"),
    ],
)
def test_values_keep_how_they_were_written(value, sent):
    assert asked_for(call(operation(query()), query=f'{{"color": {value}}}')) == f"color={sent}"


@pytest.mark.parametrize("value", [None, [], {}, [None], {"a": None}])
def test_what_is_null_or_has_nothing_in_it_is_not_sent(value):
    assert asked_for(call(operation(query()), query={"color": value})) == ""
    with pytest.raises(WrongCall, match=r"^color is required and must be specified$"):
        call(operation(msgspec.structs.replace(query(), required=True)), query={"color": value})


def test_what_the_document_does_not_name_is_sent_as_it_is():
    request = call(
        operation(),
        query={"page": 1, "tags": ["a", "b"], "filter": {"a": {"b": 1}, "c": [1, 2]}, "no": None},
        path={"id": 5},
    )
    expected = [("page", "1"), ("tags", "a"), ("tags", "b")]
    expected += [("filter[a][b]", "1"), ("filter[c]", "1"), ("filter[c]", "2")]
    assert parse_qsl(asked_for(request)) == expected
    assert urlsplit(request.url).path == "/v1/pets"


def test_a_text_in_place_of_an_array_is_one_that_is_written_already():
    asked = operation(query(explode=False, type="array"))
    assert asked_for(call(asked, query={"color": "Music,Gaming"})) == "color=Music,Gaming"


def test_what_is_reserved_is_kept_where_the_document_allows_it():
    asked = operation(query(allow_reserved=True))
    sent = asked_for(call(asked, query={"color": "a/b?c:d@e%20f g&h=i#j+k[]%"}))
    assert sent == "color=a/b?c:d@e%20f%20g%26h=i%23j%2Bk%5B%5D%25"


@pytest.mark.parametrize(
    ("type_", "value", "sent"),
    [
        ("object", {"a": 1.5}, '{"a":1.5}'),
        ("object", '{"a": 1}', '{"a": 1}'),
        ("string", "x", '"x"'),
        (None, [1], "[1]"),
    ],
)
def test_a_parameter_with_content_is_json(type_, value, sent):
    asked = operation(query(media_type="application/json", type=type_))
    assert parse_qsl(asked_for(call(asked, query={"color": value}))) == [("color", sent)]


@pytest.mark.parametrize(
    ("style", "explode", "value", "separator"),
    [
        ("spaceDelimited", False, ["a b", "c"], "' '"),
        ("pipeDelimited", False, ["a|b", "c"], r"'\|'"),
    ],
)
def test_a_value_with_the_separator_of_its_style_is_refused(style, explode, value, separator):
    with pytest.raises(WrongCall, match=rf"^color must hold no {separator} in a value"):
        call(operation(query(style, explode)), query={"color": value})


@pytest.mark.parametrize("text", ["[1]", '"x"', "5", "{", '{"a": "\\ud800"}', "[" * 5000])
def test_parameters_that_are_no_object_are_refused(text):
    with pytest.raises(WrongCall, match=r"^query_params must be "):
        call(operation(), query=text)


# Paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("../../admin", "..%2F..%2Fadmin"),
        ("a\\b", "a%5Cb"),
        ("%2e%2e", "%252e%252e"),
        ("a?b#c;d", "a%3Fb%23c%3Bd"),
        ("\r\nX: y", "%0D%0AX%3A%20y"),
        ("...", "..."),
        (5, "5"),
    ],
)
def test_a_value_stays_within_its_part_of_the_path(value, sent):
    asked = operation(path(), template="/pets/{color}/toys")
    assert call(asked, path={"color": value}).url == f"{SERVER}/pets/{sent}/toys"


@pytest.mark.parametrize(
    ("template", "style", "value"),
    [
        ("/{color}", "simple", "."),
        ("/{color}", "simple", ".."),
        ("/{color}", "label", ""),
        ("/{color}", "label", "."),
        ("/.{color}", "simple", "."),
        ("/{color}{color}", "simple", "."),
        ("/%2e{color}", "simple", "."),
    ],
)
def test_a_value_that_would_make_dots_of_a_part_of_the_path_is_refused(template, style, value):
    with pytest.raises(WrongCall, match=r"^color.* must not make `.` or `..` of a part"):
        call(operation(path(style), template=template), path={"color": value})


@pytest.mark.parametrize("value", ["", [""], {"": None}, None])
def test_a_part_of_the_path_must_not_be_empty(value):
    with pytest.raises(WrongCall, match=r"^color (is required and|must not be empty)"):
        call(operation(path(), template="/{color}"), path={"color": value})


def test_a_name_in_the_path_that_is_no_parameter_is_filled_all_the_same():
    assert call(operation(template="/pets/{id}"), path={"id": 5}).url == f"{SERVER}/pets/5"
    with pytest.raises(WrongCall, match=r"^id is required and must be specified$"):
        call(operation(template="/pets/{id}"))


@pytest.mark.parametrize(
    ("template", "sent"),
    [
        ("/", "/v1/"),
        ("/pets/", "/v1/pets/"),
        ("/do?action=x", "/v1/do?action=x"),
        ("/#Action=x", "/v1/"),
        ("/a b/ä", "/v1/a%20b/%C3%A4"),
    ],
)
def test_the_document_s_own_path_is_kept(template, sent):
    assert call(operation(template=template)).url == f"https://api.example.com{sent}"


# Servers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servers", "given", "base", "sent"),
    [
        ([SERVER, "https://b"], None, None, "https://api.example.com/v1/pets"),
        ([SERVER, "https://b"], None, "https://c", "https://c/pets"),
        ([SERVER], "https://d/x/", "https://c", "https://d/x/pets"),
        ([], None, "https://c/x", "https://c/x/pets"),
        (["/"], None, "https://c/x/", "https://c/x/pets"),
        (["/v2"], None, "https://c/x", "https://c/v2/pets"),
        (["v2/"], None, "https://c/x/", "https://c/x/v2/pets"),
        (["../v2"], None, "https://c/x/y/z", "https://c/x/v2/pets"),
        (["//h/v2"], None, "https://c", "https://h/v2/pets"),
        (["https://h/?key=1#f"], None, None, "https://h/pets?key=1"),
        (["HTTPS://h:8443"], None, None, "HTTPS://h:8443/pets"),
    ],
)
def test_a_server_and_a_path_make_a_url(servers, given, base, sent):
    assert call(operation(servers=servers), url=given, base=base).url == sent


@pytest.mark.parametrize(
    ("servers", "url"),
    [([], None), (["/v2"], None), ([], "ftp://h"), ([], "h"), ([], "https://u:p@h"), (["/"], "https://[h")],
)  # fmt: skip
def test_a_url_that_is_missing_or_none_is_refused(servers, url):
    with pytest.raises(WrongCall, match=r"send `url`|^url: "):
        call(operation(servers=servers), base=url)


# Headers and security ----------------------------------------------------------------------------


def test_headers_of_the_call_win_over_those_of_the_spec():
    request = call(
        operation(),
        headers={"header1": "val1", "Header2": "val2"},
        own={"header2": "val50", "header3": "val3"},
    )
    assert request.headers == [("header1", "val1"), ("header2", "val50"), ("header3", "val3")]


def test_a_header_that_is_a_parameter_is_found_without_case():
    asked = operation(Parameter(name="X-Id", in_="header", required=True, style="simple"))
    assert call(asked, headers={"x-id": "5"}).headers == [("x-id", "5")]
    with pytest.raises(WrongCall, match=r"^X-Id is required and must be specified$"):
        call(asked)


def test_a_default_is_sent_only_where_the_parameter_is_required():
    asked = operation(query(name="a", default=1), query(name="b", default=2))
    asked.parameters[0] = msgspec.structs.replace(asked.parameters[0], required=True)
    assert asked_for(call(asked)) == "a=1"


def test_parameters_called_like_headers_of_the_body_are_not_asked_for():
    names = ("Accept", "Content-Type", "Authorization")
    asked = operation(*[Parameter(name=each, in_="header", required=True) for each in names])
    assert call(asked).headers == []


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0", " a"])
@pytest.mark.parametrize("where", ["own", "headers"])
def test_a_header_that_would_be_two_is_refused(where, value):
    with pytest.raises(WrongCall, match=r"^headers: the value of X-A "):
        call(operation(), **{where: {"X-A": value}})


SECURED = [
    (Scheme(kind="apiKey", in_="query", name="key"), {"Key": "s 1"}, "key=s%201", []),
    (Scheme(kind="apiKey", in_="query", name="key"), {"scheme": "s"}, "key=s", []),
    (Scheme(kind="apiKey", in_="query", name="key"), {"scheme": "s", "key": "t"}, "key=t", []),
    (Scheme(kind="apiKey", in_="query", name="Scheme"), {"scheme": "s"}, "Scheme=s", []),
    (Scheme(kind="apiKey", in_="cookie", name="sid"), {"SID": "s"}, "", [("Cookie", "sid=s")]),
    (Scheme(kind="apiKey", in_="header", name="X-Key"), {"x-key": "s"}, "", [("x-key", "s")]),
    (Scheme(kind="apiKey", in_="header", name="X-Key"), {"scheme": "s"}, "", [("X-Key", "s")]),
    (Scheme(kind="basic"), {"authorization": "Basic eA=="}, "", [("authorization", "Basic eA==")]),
    (Scheme(kind="basic"), {"Scheme": "u:p"}, "", [("Authorization", "Basic dTpw")]),
    (Scheme(kind="bearer"), {"scheme": "t"}, "", [("Authorization", "Bearer t")]),
    (Scheme(kind="bearer"), {"scheme": "bearer t"}, "", [("Authorization", "bearer t")]),
    (Scheme(kind="other"), {"scheme": "t"}, "", [("scheme", "t")]),
]


@pytest.mark.parametrize(("scheme", "headers", "sent", "left"), SECURED)
def test_a_security_scheme_takes_its_value_from_the_headers(scheme, headers, sent, left):
    request = call(operation(security=[{"scheme": scheme}]), headers=headers)
    assert (asked_for(request), request.headers) == (sent, left)


@pytest.mark.parametrize("scheme", [each[0] for each in SECURED])
def test_a_security_value_that_is_missing_is_not_asked_for(scheme):
    request = call(operation(security=[{"scheme": scheme}]))
    assert (asked_for(request), request.headers) == ("", [])


def test_a_cookie_called_cookie_does_not_take_the_others():
    asked = operation(Parameter(name="cookie", in_="cookie"))
    assert call(asked, own={"Cookie": "a=1"}).headers == [("Cookie", "a=1")]


def test_a_header_that_the_document_names_stays_one_beside_a_scheme():
    asked = operation(
        Parameter(name="key", in_="header"),
        security=[{"one": Scheme(kind="apiKey", in_="query", name="key")}],
    )
    request = call(asked, headers={"key": "s"})
    assert (asked_for(request), request.headers) == ("", [("key", "s")])


# Bodies ------------------------------------------------------------------------------------------


def posted(media, body, **more):
    bodies = [media] if isinstance(media, Media) else media
    return call(operation(method="POST", body=bodies), body=body, **more)


def content_type(request):
    return dict(request.headers).get("Content-Type")


def test_json_is_sent_as_it_was_written():
    text = '{"n": 1.10, "big": 12345678901234567890123, "s": "\\u00e4"}'
    request = posted(Media(type="application/vnd.x+json"), text)
    assert (request.body, content_type(request)) == (text.encode(), "application/vnd.x+json")


@pytest.mark.parametrize(
    ("offered", "asked", "sent"),
    [
        (["text/plain", "application/json"], None, "application/json"),
        (["text/plain", "application/xml"], None, "text/plain"),
        (["text/plain", "application/json"], "text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        (["*/*"], None, "application/json"),
        (["text/*"], None, "text/plain"),
        (["image/*"], "image/png", "image/png"),
        ([], None, "application/json"),
        ([], "application/xml", "application/xml"),
    ],
)  # fmt: skip
def test_the_caller_picks_the_content_type_else_it_is_json_or_the_first(offered, asked, sent):
    own = {"Content-Type": asked} if asked else {}
    assert content_type(posted([Media(type=each) for each in offered], '"x"', own=own)) == sent


def test_a_body_is_asked_for_where_it_is_required():
    asked = operation(method="POST", body=[Media(type="application/json")], body_required=True)
    for body in (None, "null"):
        with pytest.raises(WrongCall, match=r"^req_body is required and must be specified$"):
            call(asked, body=body)


@pytest.mark.parametrize("body", [None, "null", " null "])
def test_null_is_no_body(body):
    request = posted(Media(type="application/json"), body)
    assert (request.body, request.headers) == (b"", [])


@pytest.mark.parametrize(
    ("method", "sent"), [("GET", b""), ("HEAD", b""), ("DELETE", b"{}"), ("POST", b"{}")]
)
def test_a_body_that_the_document_does_not_name_is_sent_where_there_can_be_one(method, sent):
    request = call(operation(method=method), body="{}")
    assert request.body == sent
    assert content_type(request) == ("application/json" if sent else None)


def test_a_form_has_its_values_in_their_encodings():
    media = Media(
        type="application/x-www-form-urlencoded",
        encoding={
            "csv": Encoding(explode=False),
            "deep": Encoding(style="deepObject"),
            "json": Encoding(content_type="application/json"),
            "free": Encoding(allow_reserved=True),
        },
    )
    body = {"free": "a/b c&"} | {
        "a b": "c d&",
        "n": 1.5,
        "csv": [1, 2],
        "many": [1, 2],
        "deep": {"x": {"y": 1}},
    }
    body |= {"json": [1], "object": {"z": 1}, "none": None}
    request = posted(media, body)
    sent, _, others = request.body.decode().partition("&")
    assert sent == "free=a/b%20c%26"
    assert parse_qsl(others) == [
        ("a b", "c d&"), ("n", "1.5"), ("csv", "1,2"), ("many", "1"), ("many", "2"),
        ("deep[x][y]", "1"), ("json", "[1]"), ("object", '{"z":1}'),
    ]  # fmt: skip


def test_a_form_of_deep_objects_has_arrays_at_any_depth():
    media = Media(
        type="application/x-www-form-urlencoded",
        encoding={name: Encoding(style="deepObject") for name in ("expand", "lines", "more")},
    )
    lines = [{"price": "p", "tiers": [{"to": "inf"}, {"to": 5}]}, {"price": "q"}]
    body = {"expand": ["a b", "c"], "lines": lines, "more": {"ids": [1, None, 2], "no": []}}
    assert parse_qsl(posted(media, body).body.decode()) == [
        ("expand[]", "a b"), ("expand[]", "c"),
        ("lines[0][price]", "p"), ("lines[0][tiers][0][to]", "inf"),
        ("lines[0][tiers][1][to]", "5"), ("lines[1][price]", "q"),
        ("more[ids][]", "1"), ("more[ids][]", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_is_made_of_an_object(kind):
    with pytest.raises(WrongCall, match=r"^req_body must be an object"):
        posted(Media(type=kind), [1])


def parts(request):
    head = f"Content-Type: {content_type(request)}\r\n\r\n".encode()
    message = message_from_bytes(head + request.body)
    return [
        (part.get_param("name", header="content-disposition"), part.get_filename(),
         part.get_content_type() if part["content-type"] else None, part.get_payload(decode=True))
        for part in message.get_payload()
    ]  # fmt: skip


def test_multipart_has_a_part_for_each_value():
    data = bytes(range(256))
    media = Media(
        type="multipart/form-data",
        encoding={
            "file": Encoding(binary=True),
            "image": Encoding(binary=True, content_type="image/png"),
            "meta": Encoding(content_type="application/json"),
        },
    )
    text = base64.b64encode(data).decode()
    body = {
        "file": text,
        "image": [{"content": text, "filename": 'a"\r\n.png'}, text],
        "meta": "x",
        "object": {"a": 1.5},
        "n": 5,
        "none": None,
    }
    request = posted(media, body)
    assert parts(request) == [
        ("file", "file", "application/octet-stream", data),
        ("image", "a%22%0D%0A.png", "image/png", data),
        ("image", "image", "image/png", data),
        ("meta", None, "application/json", b'"x"'),
        ("object", None, "application/json", b'{"a":1.5}'),
        ("n", None, None, b"5"),
    ]
    assert posted(media, body) == request


@pytest.mark.parametrize(
    "value", ["no base64!", 5, {"content": "eA==", "other": 1}, {"content": "?"}]
)
def test_bytes_are_given_as_base64(value):
    media = Media(type="multipart/form-data", encoding={"file": Encoding(binary=True)})
    with pytest.raises(WrongCall, match=r"^req_body.file must be base64"):
        posted(media, {"file": value})


@pytest.mark.parametrize(
    ("media", "body", "sent"),
    [
        (Media(type="text/plain"), '"ä"', "ä".encode()),
        (Media(type="text/plain; charset=latin-1"), '"ä"', "ä".encode("latin-1")),
        (Media(type="text/csv"), "1.10", b"1.10"),
        (Media(type="application/xml"), '"<a/>"', b"<a/>"),
        (Media(type="application/octet-stream"), '"eA=="', b"eA=="),
        (Media(type="application/octet-stream", encoding={"": Encoding(binary=True)}), '"eA=="', b"x"),
    ],
)  # fmt: skip
def test_a_body_of_text_or_bytes(media, body, sent):
    request = posted(media, body)
    assert (request.body, content_type(request)) == (sent, media.type)


@pytest.mark.parametrize("value", ["\ud800", ["\ud800"], {"a": "\ud800"}, [["\ud800"]]])
def test_half_a_surrogate_pair_is_refused(value):
    for place in ("query", "path"):
        asked = operation(path(), query(), template="/{color}")
        arguments = Arguments(**{"path": {"color": "x"}, place: {"color": value}})
        with pytest.raises(WrongCall, match=r"half a surrogate pair"):
            build(asked, arguments, headers={}, url=None)


def test_a_number_that_is_too_long_to_be_one_is_refused():
    with pytest.raises(WrongCall, match=r"^query_params must be JSON: Integer value out of range"):
        call(operation(query()), query='{"color": ' + "9" * 5000 + "}")
    with pytest.raises(WrongCall, match=r"more than 4300 digits"):
        build(operation(query()), Arguments(query={"color": 10**5000}), headers={}, url=None)
    sent = asked_for(call(operation(query()), query='{"color": ' + "9" * 400 + "}"))
    assert sent == "color=" + "9" * 400


def test_calls_are_built_without_the_libraries_of_the_child():
    libraries = "'openapi_core', 'openapi_spec_validator', 'jsonschema', 'jsonschema_path'"
    program = (
        f"import scheduler.documents.operation, sys; assert not set(sys.modules) & {{{libraries}}}"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_operation_that_cannot_be_called_says_why():
    with pytest.raises(WrongCall, match=r"^TRACE is not sent$"):
        call(operation(refused="TRACE is not sent"))


# What is sent can be read back, and reaches nothing else -----------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NAME = st.text(st.characters(codec="utf-8", exclude_characters="[]"), min_size=1, max_size=6)
SCALAR = (
    TEXT
    | st.booleans()
    | st.integers()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUE = st.recursive(
    SCALAR, lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXT, each, max_size=3), max_leaves=6
)  # fmt: skip


def read(sent, name, style, explode, value):
    """A reader of RFC 6570's expansions for lists and maps, as simple as can be."""
    first, between, named = {"simple": ("", ",", False), "label": (".", ".", False)}.get(
        style, (";", ";", True) if style == "matrix" else ("", "&", True)
    )
    assert sent.startswith(first)
    words = sent.removeprefix(first)
    if explode:
        halves = [each.split("=", 1) for each in words.split(between)]
        if isinstance(value, dict):
            return {unquote(half[0]): unquote("".join(half[1:])) for half in halves}
        if named:
            assert {unquote(half[0]) for half in halves} == {name}
            return [unquote("".join(half[1:])) for half in halves]
        return [unquote("=".join(half)) for half in halves]
    if named:
        before, _, words = words.partition("=")
        assert unquote(before) == name
    separator = {"spaceDelimited": "%20", "pipeDelimited": "%7C"}.get(style, ",")
    flat = [unquote(each) for each in words.split(separator)]
    return dict(zip(flat[::2], flat[1::2], strict=True)) if isinstance(value, dict) else flat


LISTS = st.lists(TEXT, min_size=1, max_size=4)
MAPS = st.dictionaries(NAME, TEXT, min_size=1, max_size=4)


@given(
    st.sampled_from(["form", "spaceDelimited", "pipeDelimited"]), st.booleans(), NAME, LISTS | MAPS
)
@settings(max_examples=200)
def test_what_stands_in_a_query_can_be_read_back(style, explode, name, value):
    try:
        request = call(operation(query(style, explode, name)), query={name: value})
    except WrongCall:
        separator = {"spaceDelimited": " ", "pipeDelimited": "|"}[style]
        texts = [*value, *(value.values() if isinstance(value, dict) else [])]
        assert any(separator in each for each in texts)
    else:
        assert read(asked_for(request), name, style, explode, value) == value


@given(st.sampled_from(["simple", "label", "matrix"]), st.booleans(), NAME, LISTS | MAPS)
@settings(max_examples=200)
def test_what_stands_in_a_path_can_be_read_back(style, explode, name, value):
    asked = operation(
        path(style, explode, name), template="/in/{" + re.sub("[{}/?#]", "", name) + "}"
    )
    assume(asked.path == "/in/{" + name + "}")
    try:
        request = call(asked, path={name: value})
    except WrongCall as wrong:
        assert re.search("must not (be empty|make)|must hold no '.' in", str(wrong))
    else:
        sent = request.url.removeprefix(f"{SERVER}/in/")
        assert read(sent, name, style, explode, value) == value


EVERYWHERE = operation(
    path(name="id"), path("label", True, "label"), path("matrix", True, "matrix"),
    query(name="q"), query("deepObject", name="deep"), query(allow_reserved=True, name="free"),
    query("pipeDelimited", False, name="pipe"),
    Parameter(name="X-H", in_="header", style="simple"), Parameter(name="c", in_="cookie"),
    template="/a/{id}/b/{label}{matrix}/c.{id}", method="POST",
    body=[Media(type="multipart/form-data", encoding={"file": Encoding(binary=True)}),
          Media(type="application/x-www-form-urlencoded"), Media(type="text/plain")],
    security=[{"s": Scheme(kind="apiKey", in_="query", name="k"), "b": Scheme(kind="basic")}],
)  # fmt: skip


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("q", "deep", "free", "pipe", "X-H", "c", "other"), VALUE)),
    st.fixed_dictionaries(dict.fromkeys(("id", "label", "matrix"), VALUE)),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("X-H", "c", "s", "k", "b", "Cookie"), TEXT)),
    st.sampled_from(["multipart/form-data", "application/x-www-form-urlencoded", "text/plain"]),
    VALUE,
)  # fmt: skip
@settings(max_examples=300)
def test_no_argument_reaches_beyond_its_place(asked, filled, own, kind, body):
    try:
        request = call(
            EVERYWHERE, query=asked, path=filled, own={**own, "Content-Type": kind}, body=body
        )
    except WrongCall:
        return
    made = urlsplit(request.url)
    assert f"{made.scheme}://{made.netloc}" == "https://api.example.com"
    assert re.fullmatch(r"/v1/a/[^/]+/b/\.[^/]*/c\.[^/]+", made.path)
    assert not {unquote(each) for each in made.path.split("/")} & {".", ".."}
    assert "\\" not in request.url
    assert "#" not in request.url
    ready = target.prepare(request.method, request.url, dict(request.headers), request.body)
    lines = ready.head.decode().split("\r\n")
    names = {each.partition(":")[0].lower() for each in lines[1:-1]}
    known = {"host", "accept-encoding", "content-length", "content-type", "cookie"}
    assert names <= known | {"x-h", "authorization"} | {each.lower() for each in own}
    assert {"s", "k", "b", "c"}.isdisjoint(names)
