"""Operations run to their end, whoever waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar, final

import grpc

from motherlode.core.errors import BundleError
from motherlode.server.failure import RepositoryUnusableError
from motherlode.server.status import abort, code_of

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@final
class UnderWay:
    """What operators have asked for and is not done yet."""

    def __init__(self) -> None:
        # Held here, for the event loop does not.
        self._tasks: set[asyncio.Task[Any]] = set()

    async def complete(self, work: Coroutine[Any, Any, _Result], context: Any) -> _Result:
        """What the work gives; an error of it ends the call.

        The work goes on where the caller gives up: half of it done would be the worst outcome.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                logger.warning("nobody waits for an operation any more; it goes on")
                task.add_done_callback(_tell_outcome)
            raise
        except (BundleError, OSError) as error:
            await abort(context, RepositoryUnusableError(str(error)))
        except Exception as error:
            if code_of(error) is grpc.StatusCode.INTERNAL:
                logger.error("an operation failed", exc_info=error)
            await abort(context, error)


def _tell_outcome(task: asyncio.Task[Any]) -> None:
    """Of an operation that nobody waits for."""
    if task.cancelled():
        logger.warning("an operation that nobody waited for was cut off")
    elif error := task.exception():
        logger.error("an operation that nobody waited for failed: %s", error)
    else:
        logger.info("an operation that nobody waited for is done")
