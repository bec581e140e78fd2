"""What the fields of specs mean, and examples of what is asked and answered."""

from scheduler.described.said import IGNORED, INSTANT, LATER, Json, said

TRACE = "liTsN5cS3JHrVoYW"
HEADERS = {"x-api-host": "api.example.com", "x-api-key": "the-key-of-the-api"}
DOCUMENT = (
    "b3BlbmFwaTogMy4wLjMKaW5mbzoKICB0aXRsZTogQVBJCiAgdmVyc2lvbjogMS4wLjAKICBjb250YWN0OiB7fQpzZXJ2"
    "ZXJzOiBbXQpwYXRoczoge30KdGFnczogW10K"
)
WORDS = ["WAITING", "IN_PROGRESS", "READY_YAML", "READY_CLIENT", "SUCCESS", "ERROR"]
URL = "https://api.example.com"
STEPS = [
    "Received in the API",
    "Received in the worker",
    "Spec YAML file generated",
    "Client code generated (not reviewed)",
    "Client code generated and reviewed",
]
STATUS: Json = {
    "status": "SUCCESS",
    "message": "The spec has been completed successfully.",
    "step": STEPS,
}
PARAMETER: Json = {
    "default": None, "enum": None, "name": "term", "in": "query", "type": "string",
    "required": True,
}  # fmt: skip
CLIENT: Json = {
    "endpoints": {"GET /channels": [PARAMETER]}, "headers": list(HEADERS), "servers": [URL],
    "url": URL,
}  # fmt: skip

SPECS = {
    "CreatedSpec.trace_id": said("The id of the spec, 16 letters and digits.", TRACE),
    "SpecFields.name": said("The name that processes call it by. It is stored in lower case, and "
                            "is one spec's in a service. Needed to create one.", "Filmot",
                            minLength=1, maxLength=200),
    "SpecFields.headers": said("Headers of every call through the spec. Needed to create one; {} "
                               "where there are none.", HEADERS,
                               additionalProperties={"type": "string"}),
    "SpecFields.spec": said("The OpenAPI document, 3.0 or 3.1, YAML or JSON, in base64. Needed to "
                            "create one.", DOCUMENT),
    "SpecFields.url": said("Where calls go, whatever servers the document names; null for "
                           "those.", URL),
    "SpecFields.trace_id": said(IGNORED, None),
    "SpecFields.status": said(IGNORED, None),
    "SpecFields.client": said(IGNORED, None),
    "SpecFields.created_at": said(IGNORED, None),
    "SpecFields.updated_at": said(IGNORED, None),
    "SpecStatus.status": said("How far it has come.", "SUCCESS", enum=WORDS),
    "SpecStatus.message": said("The same in words.", STATUS["message"]),
    "SpecStatus.error": said("What is wrong, and where; only of what failed.",
                             "paths./pets.get: 'responses' is a required property"),
    "SpecStatus.step": said("What has been done, the first first.", STEPS[:1]),
    "SpecParameter.default": said("What the document says it is where nobody sends it.", None),
    "SpecParameter.enum": said("The values that it may have; null for any.", None),
    "SpecParameter.name": said("Its name.", "term"),
    "SpecParameter.in": said("Where it stands.", "query",
                             enum=["path", "query", "header", "cookie"]),
    "SpecParameter.type": said("Its type; null where the document names none, or several.",
                               "string"),
    "SpecParameter.required": said("Whether a call needs it.", True),
    "SpecClient.endpoints": said("What can be called, and with which parameters.",
                                 CLIENT["endpoints"]),
    "SpecClient.headers": said("Headers that calls may need, and those of the spec.",
                               CLIENT["headers"]),
    "SpecClient.servers": said("The servers that the document names.", [URL]),
    "SpecClient.url": said("Where calls go; null where nothing says so.", URL),
    "SpecClient.refused": said("Endpoints that cannot be called, and why; only where there are "
                               "any.", {"GET /old": "its server is no http address"}),
    "Spec.trace_id": said("The id of the spec.", TRACE),
    "Spec.created_at": said("When it was created.", INSTANT, format="date-time"),
    "Spec.updated_at": said("When it was changed last, or came a step further.", LATER,
                            format="date-time"),
    "Spec.name": said("Its name, in lower case.", "filmot"),
    "Spec.status": said("How far the document has come that was sent last.", STATUS),
    "Spec.client": said("What the document that serves compiled to; only where it is asked for.",
                        CLIENT),
    "Spec.spec": said("The document that was sent last, in base64; only where it is asked for.",
                      DOCUMENT),
    "Spec.headers": said("The headers as they were sent, to their own service.", HEADERS),
    "SpecList.count": said("How many specs there are.", 1),
    "SpecList.results": said("Some of them, the newest first.", []),
}  # fmt: skip
SCHEMAS = {
    "CreatedSpec": "A spec just created.",
    "Spec": "An OpenAPI document whose endpoints can be called by name.",
    "SpecClient": "What a document compiled to.",
    "SpecFields": "What can be sent of a spec; an update changes what it sends.",
    "SpecList": "A page of specs, the newest first.",
    "SpecParameter": "A parameter of an endpoint.",
    "SpecStatus": "How far a spec has come.",
}
PARAMETERS: dict[str, tuple[str, object]] = {
    "trace_id": ("The id of a spec.", TRACE),
    "offset": ("How many specs come before the first that is answered.", 0),
    "list_specs.limit": ("How many specs to answer at most, 1 to 1,000.", 100),
    "spec": ("Answer the document, too, in base64.", True),
    "client": ("Answer what the document compiled to, too.", True),
}

SHOWN: Json = {
    "trace_id": TRACE, "created_at": INSTANT, "updated_at": LATER, "name": "filmot",
    "status": STATUS, "client": CLIENT, "spec": DOCUMENT, "headers": HEADERS,
}  # fmt: skip
SENT: dict[str, Json] = {
    "create_spec": {"name": "Filmot", "headers": HEADERS, "spec": DOCUMENT},
    "change_spec": {"headers": HEADERS},
}
ANSWERED: dict[str, Json] = {
    "create_spec": {"200": {"trace_id": TRACE}},
    "get_spec_status": {"200": STATUS},
    "get_spec": {"200": SHOWN},
    "list_specs": {"200": {"count": 1, "results": [SHOWN]}},
    "get_document": {
        "200": {"openapi": "3.0.3", "info": {"title": "API", "version": "1.0.0"}, "paths": {}}
    },
    "get_metadata": {"200": {"trace_id": TRACE, "name": "filmot", "updated_at": LATER}},
    "get_package": {"200": "PK..."},
}
