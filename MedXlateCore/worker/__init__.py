"""A resident worker process: the model stays loaded, a cancel really ends the work, a crash takes nobody with it.

``python -m MedXlateCore.worker`` reads commands as JSON lines from stdin and appends events as JSON lines to stdout,
which the client has opened as a file; voxels go through shared memory. :class:`WorkerClient` does the client's side
without threads and without ever waiting, as a graphical program needs it. Nothing here imports torch; only the worker
itself does.

==============  ====================================================================================================
command         keys
==============  ====================================================================================================
``open``        ``id``, ``sources`` (volumes), ``model`` (folder), ``options`` (of ``TranslationSession``)
``update``      ``id``, ``roi`` (volume or null), ``result`` and ``uncertainty`` (where the voxels go; the latter
                null where fewer than two samples are drawn)
``forget``      ``id``: drop the session; the model stays loaded
``quit``        end
==============  ====================================================================================================

Events: ``ready``, ``opened``, ``started``, ``progress``, ``warned``, ``finished``, ``result``, ``forgotten``,
``failed``.
"""

from MedXlateCore.worker.client import WorkerClient
from MedXlateCore.worker.messages import Failed, Opened, Ready, Result, WorkerEvent

__all__ = ["Failed", "Opened", "Ready", "Result", "WorkerClient", "WorkerEvent"]
