"""What onnxruntime raises.

Stage: below loading. Used wherever a file is opened or run; never opens one itself.
"""

from onnxruntime.capi import onnxruntime_pybind11_state as raised

RUNTIME_ERRORS = (
    raised.EPFail,
    raised.Fail,
    raised.InvalidArgument,
    raised.InvalidGraph,
    raised.InvalidProtobuf,
    raised.NoSuchFile,
    raised.NotImplemented,
    raised.RuntimeException,
)
"""They share no base class below Exception."""
