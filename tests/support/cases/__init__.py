"""What deepshap must explain exactly, one line each: an operation, a layer, a model.

``both`` is the list for every engine: a name and the function in each framework. What stands in ``of_torch``, ``of_tensorflow``
and ``rare_of_tensorflow`` says why the other framework is not asked (``alone``), section by section. What cases are tested for
is in ``test_cases.py`` and ``test_keras_table.py``.
"""
