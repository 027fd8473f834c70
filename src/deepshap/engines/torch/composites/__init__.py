"""Functions written out in smaller ones, each of which has a rule.

They run while the tracer listens, so every call in them is an operation of the table; a ``primitive`` is an
operation of our own. Where the original takes arguments that do not change the value (``cudnn_enabled`` and such),
``*_`` takes them up.
"""
