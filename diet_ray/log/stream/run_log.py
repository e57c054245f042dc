"""The log of a run, prepared or streamed."""

from diet_ray import layout
from diet_ray.log.dataset import EncodedLog, PreparedLog
from diet_ray.log.stream.log import StreamLog
from diet_ray.storage import Folder


def open_log(url: str) -> EncodedLog:
    """A stream where the folder is one, else a prepared log; DataError where it is neither."""
    folder = Folder.at(url)
    return StreamLog.open(folder) if folder.exists(layout.STREAM_MANIFEST) else PreparedLog.open(url)
