"""Compiled kernels: arrays in, arrays out, without knowledge of models, rules or cells.

``numbers`` has the secants of single numbers, ``pairs`` the rules of all pairs in one pass, ``attention`` the rule of attention,
``steps`` the steps of recurrent layers for the CPU, by Numba, and ``steps_on_gpu`` these steps by Triton. ``jit_threshold``
decides when there is enough work for them.
"""
