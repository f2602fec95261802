"""Exports every model to ONNX."""
