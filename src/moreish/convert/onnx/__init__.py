"""Exports every model to ONNX."""

from moreish.convert.onnx.export import ONNXExporter
