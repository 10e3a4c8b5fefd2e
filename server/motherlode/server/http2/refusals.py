"""Why a call is not begun."""

from __future__ import annotations

import grpc

from motherlode.core.errors import MotherlodeError, OverloadedError
from motherlode.server.http2.headers import RequestHead
from motherlode.server.http2.host import Host
from motherlode.server.http2.method import CallEndedError, Method
from motherlode.server.http2.stream import Stream
from motherlode.server.status import failure_of

# Answers that wait for their caller, in the largest of them; with more, nothing new is begun.
_MAX_UNSENT_ANSWERS = 4
_RETRY_AFTER_S = 1.0


def refusal_of(
    stream: Stream, head: RequestHead, method: Method | None, host: Host, num_unsent: int
) -> CallEndedError | None:
    """Why a call is not begun; None where it is, and then its stream knows who asks.

    Args:
        stream: Of the call.
        head: Its headers.
        method: What it asks for; None where there is no such method.
        host: Where it came.
        num_unsent: Bytes of answers that its connection holds.
    """
    if head.refusal is not None:
        return CallEndedError(*failure_of(head.refusal))
    try:
        caller = stream.context.run(host.admit, head.method, head.metadata)
        stream.caller = caller or stream.caller
    except MotherlodeError as error:
        return CallEndedError(*failure_of(error))
    if method is None:
        unknown = f"there is no method {head.method[:200]}"
        return CallEndedError(grpc.StatusCode.UNIMPLEMENTED, unknown)
    if num_unsent > _MAX_UNSENT_ANSWERS * host.limits.max_message_bytes:
        why = f"{num_unsent} bytes of answers wait on this connection for their caller"
        overload = OverloadedError(why, retry_after_s=_RETRY_AFTER_S, reason="UNFETCHED_ANSWERS")
        return CallEndedError(*failure_of(overload))
    return None
