"""HTTP in front of the classifier: one module a protocol."""
