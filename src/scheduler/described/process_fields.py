"""What the fields of processes mean, and examples of what is asked and answered."""

from scheduler.described.said import INSTANT, LATER, YEAR_S, Json, said

TRACE = "WE7koqi5NvmmlINj"
METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"]
WORDS = ["WAITING", "IN_PROGRESS", "SUCCESS", "ERROR"]
IGNORED = "Answered alone; taken and ignored, so that an answer may be sent back whole."
HEADERS = {"X-Client": "reports"}
QUERY = {"term": "science"}
OBJECT = {"type": ["object", "null"]}

PROCESSES = {
    "ProcessFields.service": said("The name of a spec, in any case.", "Filmot", maxLength=200),
    "ShownProcess.service": said("The name of the spec, in lower case.", "filmot"),
    "ProcessFields.endpoint": said("A path of the spec, as the document writes it.",
                                   "/getsearchchannels", maxLength=8192),
    "ShownProcess.endpoint": said("A path of the spec.", "/getsearchchannels"),
    "ProcessFields.method": said("GET, POST, PUT, DELETE, OPTIONS, PATCH or HEAD.", "GET"),
    "ShownProcess.method": said("The method, in upper case.", "GET", enum=METHODS),
    "ProcessFields.headers": said("Headers of this call. They replace those of the spec, whatever "
                                  "the case of their names.", HEADERS,
                                  additionalProperties={"type": "string"}),
    "ShownProcess.headers": said("The headers as they were sent, to their own service.", HEADERS),
    "ProcessFields.query_params": said("Parameters of the query, by name.", QUERY, **OBJECT),
    "ShownProcess.query_params": said("Parameters of the query, as they were sent.", QUERY),
    "ProcessFields.url_params": said("Parameters of the path, by name.", {"id": 7}, **OBJECT),
    "ShownProcess.url_params": said("Parameters of the path, as they were sent.", None),
    "ProcessFields.req_body": said("The body of the call: any value.", {"name": "Rex"}),
    "ShownProcess.req_body": said("The body of the call, as it was sent.", None),
    "ProcessFields.url": said("Where the spec names no server: http or https.",
                              "https://api.example.com"),
    "ShownProcess.url": said("Where the call goes, if it was sent.", "https://api.example.com"),
    "ProcessFields.scheduled_at": said("When to call; null, or a time that has passed: now.",
                                       INSTANT),
    "ShownProcess.scheduled_at": said("When it is to call, if that was not now.", INSTANT,
                                      format="date-time"),
    "ProcessFields.callback_url": said("Told of the end by a signed POST of `trace_id`, `status`, "
                                       "`response_status` and `response` (base64), retried.",
                                       "https://example.com/ended"),
    "ShownProcess.callback_url": said("What is told of the end, if it was sent.",
                                      "https://example.com/ended"),
    "ProcessFields.priority": said("Higher goes first among what is due.", 0, minimum=-100,
                                   maximum=100),
    "ShownProcess.priority": said("Its priority, if that is not 0.", 10),
    "ProcessFields.max_retries": said("Tries after the first. Without it what is safe to repeat "
                                      "has `worker.max_retries`, POST and PATCH none.", 3,
                                      minimum=0, maximum=100),
    "ShownProcess.max_retries": said("Tries after the first, if sent.", 3),
    "ProcessFields.timeout_seconds": said("How long one try may take.", 3600, default=3600,
                                          minimum=0.001, maximum=YEAR_S),
    "ShownProcess.timeout_seconds": said("How long one try may take, if sent.", 3600),
    "ProcessFields.cache": said("Whether an answer that others got may be given; null for what is "
                                "usual.", False),
    "ShownProcess.cache": said("Whether an answer that others got may be given, if sent.", False),
    "ProcessFields.trace_id": said(IGNORED, None),
    "ProcessFields.timestamp": said(IGNORED, None),
    "ProcessFields.status": said(IGNORED, None),
    "CreatedProcess.trace_id": said("The id of the process.", TRACE),
    "ShownProcess.trace_id": said("The id of the process.", TRACE),
    "ShownProcess.timestamp": said("When it was created.", INSTANT, format="date-time"),
    "ShownProcess.status": said("Where it stands.", None),
    "CreatedProcess.status": said("That it waits.", "WAITING", enum=["WAITING"]),
    "msg": said("The same in words.", "Your request is waiting to be processed."),
    "ProcessStatus.status": said("Where it stands.", "SUCCESS", enum=WORDS),
    "ProcessStatus.message": said("The same in words.", "The request is being processed."),
    "ProcessStatus.error": said("Why it failed; only of what did.",
                                "The command could not be executed because the service requested "
                                "(filmot) is not available."),
    "step": said("What has been done, the first first.", ["Received in the API"]),
}  # fmt: skip
SCHEMAS = {
    "ProcessFields": "A call through a spec; null is the same as not sent.",
    "ShownProcess": "A process as it was sent; what is optional is there where it was sent.",
    "CreatedProcess": "A process just created.",
    "ProcessStatus": "Where a process stands.",
}
PARAMETERS = {
    f"{operation}.trace_id": ("The id of a process.", TRACE)
    for operation in ("get_process", "get_process_status", "get_process_response")
} | {"wait": ("So many seconds at most until it has ended; 0 for the answer at once.", 0)}

SENT: dict[str, Json] = {
    "create_process": {
        "service": "Filmot",
        "endpoint": "/getsearchchannels",
        "method": "GET",
        "query_params": QUERY,
    }
}
STATUS: Json = {
    "status": "SUCCESS",
    "message": "The request has been executed and the process has been completed successfully.",
    "step": ["Received in the API", "Received in the worker", "Executed command successfully"],
}
ANSWERED: dict[str, Json] = {
    "create_process": {
        "200": {
            "trace_id": TRACE,
            "status": "WAITING",
            "msg": "Your request is waiting to be processed.",
        }
    },
    "get_process": {
        "200": {
            "trace_id": TRACE, "timestamp": LATER, "status": STATUS, "service": "filmot",
            "method": "GET", "endpoint": "/getsearchchannels", "headers": None,
            "query_params": QUERY, "url_params": None, "req_body": None,
        }
    },
    "get_process_status": {"200": STATUS},
}  # fmt: skip
